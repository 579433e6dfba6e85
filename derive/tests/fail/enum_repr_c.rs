use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
enum Choice {
    A,
    B,
}

fn main() {}
