use std::ptr::NonNull;

use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record {
    field: NonNull<u8>,
}

fn main() {}
