use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record<T> {
    large: u64,
    value: T,
}

fn main() {
    let record = Record { large: 1, value: 2u32 };
    tombolo::message::as_bytes(&record);
}
