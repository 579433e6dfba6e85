use std::cell::Cell;

use tombolo::Message;

#[derive(Message)]
#[repr(C)]
struct Record {
    field: Cell<u32>,
}

fn main() {}
