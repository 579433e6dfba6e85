use tombolo::Message;

#[derive(Message)]
#[repr(C)]
struct Record {
    field: u32,
}

impl Drop for Record {
    fn drop(&mut self) {}
}

fn main() {}
