use tombolo::Message;

#[derive(Message)]
#[repr(C)]
struct Record {
    field: Vec<u8>,
}

fn main() {}
