use std::rc::Rc;

use tombolo::Message;

#[derive(Message)]
#[repr(C)]
struct Record {
    field: Rc<u8>,
}

fn main() {}
