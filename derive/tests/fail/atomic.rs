use std::sync::atomic::AtomicU32;

use tombolo::Message;

#[derive(Message)]
#[repr(C)]
struct Record {
    field: AtomicU32,
}

fn main() {}
