fn main() {
    tombolo::message::as_bytes(&1usize);
}
