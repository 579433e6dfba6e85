use tombolo::Message;

#[derive(Clone, Copy, Message)]
struct Record {
    field: u32,
}

fn main() {}
