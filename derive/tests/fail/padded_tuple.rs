use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(transparent)]
struct Record((u64, u32));

fn main() {}
