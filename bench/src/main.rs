//! Measurements of tombolo against physical limits and peers.
fn main() {}
