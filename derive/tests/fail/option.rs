use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record {
    field: Option<u32>,
}

fn main() {}
