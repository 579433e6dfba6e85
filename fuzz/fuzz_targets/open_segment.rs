//! Foreign bytes at the name of a segment: opened, and used in every way.
//!
//! The input is a list of changes to a sound segment, four bytes each: where (two bytes), how, and the value.

#![no_main]

#[path = "../../tests/foreign/mod.rs"]
mod foreign;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static NAME: LazyLock<String> = LazyLock::new(|| format!("fuzz-{}", std::process::id()));
static TEMPLATE: LazyLock<Vec<u8>> = LazyLock::new(|| foreign::template(&NAME));

fuzz_target!(|changes: &[u8]| {
    let mut bytes = TEMPLATE.clone();
    let used = foreign::used(&TEMPLATE);
    for change in changes.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % used;
        let run = 1 + usize::from(change[2] >> 2) % 8;
        for byte in &mut bytes[at..(at + run).min(used)] {
            *byte = match change[2] & 3 {
                0 => change[3],
                1 => *byte ^ change[3],
                2 => byte.wrapping_add(change[3]),
                _ => 0xff,
            };
        }
    }
    foreign::plant(&NAME, &bytes);
    foreign::open_and_use(&NAME);
    foreign::clear(&NAME);
});
