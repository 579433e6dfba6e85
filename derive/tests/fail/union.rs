use tombolo::Message;

#[derive(Clone, Copy, Message)]
#[repr(C)]
union Either {
    int: u32,
    float: f32,
}

fn main() {}
