use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record<'a> {
    field: &'a u32,
}

fn main() {}
