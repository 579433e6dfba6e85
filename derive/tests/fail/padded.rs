use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record {
    small: u8,
    large: u32,
}

fn main() {}
