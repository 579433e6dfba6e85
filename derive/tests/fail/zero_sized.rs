use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Nothing;

fn main() {}
