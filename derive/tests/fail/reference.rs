use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record {
    field: &'static str,
}

fn main() {}
