use tombolo::message::Maybe;

fn main() {
    tombolo::message::as_bytes(&Maybe::some(1u128));
}
