use tombolo::Message;

#[derive(Message)]
#[repr(C)]
struct Record {
    field: Box<u8>,
}

fn main() {}
