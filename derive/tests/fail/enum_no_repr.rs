use tombolo::Message;

#[derive(Clone, Copy, Message)]
enum Choice {
    A,
    B,
}

fn main() {}
