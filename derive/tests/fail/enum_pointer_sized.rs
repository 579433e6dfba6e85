use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(usize)]
enum Choice {
    A,
    B,
}

fn main() {}
