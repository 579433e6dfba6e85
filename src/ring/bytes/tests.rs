//! The sizes of records.

use super::record::{BESIDE, LINE, lines_for, longest};

#[test]
fn records_take_as_many_lines_as_they_need() {
    assert_eq!(lines_for(0), 1);
    assert_eq!(lines_for(BESIDE), 1);
    assert_eq!(lines_for(BESIDE + 1), 2);
    assert_eq!(lines_for(LINE), 2);
    assert_eq!(lines_for(LINE + 1), 3);
}

#[test]
fn the_longest_record_takes_half_the_ring() {
    for capacity in [4, 8, 64, 1 << 26] {
        assert_eq!(lines_for(longest(capacity)) as u64, capacity / 2);
    }
    assert!((longest(1 << 26) as u64) < u64::from(u32::MAX));
}
