//! The bytes of a segment: header, participant table, directory, and the region an object gets.
//!
//! Nothing here waits, and nothing here knows a user's type. The same bytes stand in `docs/layout.md`; a test compares
//! the two. Every number read from a segment is a claim until [`Geometry::check`] has bounded it; the checked copy
//! lives in the process and is what everything above uses.

mod directory;
mod header;
mod line;
mod region;

pub(crate) use directory::{ENTRY_FREE, ENTRY_READY, ENTRY_RESERVED, Entry};
pub(crate) use header::{
    FLAG_ANONYMOUS, FLAG_NO_KEEPER, FLAG_REMOVE_WITH_LAST, FLAG_SYSTEM_V, Geometry, Header,
    INTENT_CONSTRUCT, INTENT_GROW, INTENT_NONE, MAGIC, MAX_ENTRIES, MAX_LINES, Plan, abi_word,
};
pub(crate) use line::{LINE_ATTACHED, LINE_FREE, LINE_LEFT, Line, Tag};
pub(crate) use region::{InSegment, Region, view};

/// Lock byte held shared by an attacher and exclusively by whoever retires the object.
pub(crate) const BYTE_LIFE: u64 = 0;
/// Lock byte held shared by everybody who maps the object, readers and forked children included.
pub(crate) const BYTE_PRESENCE: u64 = 1;
/// Lock byte held exclusively by whoever removes the object's name, so that two of them never remove a successor's.
pub(crate) const BYTE_NAME: u64 = 2;
/// Lock byte held shared by every copy of a pipe's read end that nobody has turned into a reader yet.
pub(crate) const BYTE_READ_END: u64 = 3;
/// Lock byte held shared by every copy of a pipe's write end that nobody has turned into a writer yet.
pub(crate) const BYTE_WRITE_END: u64 = 4;
/// Lock byte of participant line 0; line `i` has the `i`-th byte from here.
pub(crate) const BYTE_LINE: u64 = 16;

/// Alignment of every object in a segment, in bytes: two cache lines, which are fetched in pairs.
pub(crate) const OBJECT_ALIGN: u64 = 128;

/// One row of the layout table: struct, field, offset in bytes, size in bytes.
pub type LayoutRow = (&'static str, &'static str, usize, usize);

/// The layout of this module's structs, as compiled.
pub(crate) fn rows() -> Vec<LayoutRow> {
    let mut rows = header::rows();
    rows.extend(line::rows());
    rows.extend(directory::rows());
    rows
}

/// Rows for the fields of one struct, closed by a row with the struct's size and alignment; `as` gives it another name
/// in the document than it has in the code.
macro_rules! layout_rows {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        layout_rows!($name as (stringify!($name)) { $($field),+ })
    };
    ($name:ident as ($shown:expr) { $($field:ident),+ $(,)? }) => {{
        fn size<S, F>(_: fn(&S) -> &F) -> usize {
            size_of::<F>()
        }
        vec![
            $((
                $shown,
                stringify!($field),
                std::mem::offset_of!($name, $field),
                size(|s: &$name| &s.$field),
            ),)+
            ($shown, "", size_of::<$name>(), align_of::<$name>()),
        ]
    }};
}
pub(crate) use layout_rows;
