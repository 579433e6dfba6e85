use tombolo::Message;

#[derive(Message)]
#[repr(C)]
struct Record {
    field: String,
}

fn main() {}
