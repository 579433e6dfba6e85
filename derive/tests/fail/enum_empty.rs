use tombolo::Message;

#[derive(Clone, Copy, Message)]
enum Nothing {}

fn main() {}
