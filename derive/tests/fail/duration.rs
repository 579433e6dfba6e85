use std::time::Duration;

use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
struct Record {
    field: Duration,
}

fn main() {}
