use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record<T> {
    field: T,
}

fn send<M: Message>(_: M) {}

fn main() {
    send(Record { field: 1u64 });
    send(Record { field: 1usize });
}
