use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(u8)]
enum Choice {
    A,
    B(u32),
}

fn main() {}
