use std::marker::PhantomData;

use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(transparent)]
struct Id {
    number: u64,
    of: PhantomData<String>,
}

fn main() {}
