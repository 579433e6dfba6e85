use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C, packed)]
struct Record {
    small: u8,
    large: u32,
}

// The trap: a reference to `large` would be unaligned.
fn large(record: &Record) -> *const u32 {
    &raw const record.large
}

fn main() {
    large(&Record { small: 1, large: 2 });
}
