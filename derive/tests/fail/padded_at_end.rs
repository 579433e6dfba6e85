use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record {
    large: u64,
    small: u32,
}

fn main() {}
