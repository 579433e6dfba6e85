use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Nothing {
    field: [u32; 0],
}

fn main() {}
