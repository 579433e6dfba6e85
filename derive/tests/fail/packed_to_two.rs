use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
#[repr(packed(2))]
struct Record {
    small: u16,
    large: u32,
}

fn main() {}
