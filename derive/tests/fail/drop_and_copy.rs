use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record {
    field: u32,
}

impl Drop for Record {
    fn drop(&mut self) {}
}

fn main() {}
