//! Where two layouts differ, told to the person who has to find out why.

use std::fmt;

/// Bytes of a foreign description that are kept to be shown; a damaged one may be of any length.
const SHOWN: usize = 16 * 1024;

/// The first place where two descriptions of a layout differ.
///
/// Made by [`first_difference`]. Prints the place, then both descriptions in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    line: usize,
    ours: String,
    theirs: String,
}

/// Compares two descriptions of a layout, `None` if they are the same.
///
/// `ours` was made by [`Layout::describe`](super::Layout::describe) just now, `theirs` was found in a
/// segment and may be anything: bytes that are no text are replaced, control characters are escaped,
/// and what is too long is cut, but only for display.
///
/// ```
/// use tombolo::message::first_difference;
///
/// let ours = "0 8 8 . Sample\n0 8 8 .value f64\n";
/// let theirs = "0 8 8 . Sample\n0 8 8 .value u64\n";
/// assert_eq!(first_difference(ours, ours), None);
///
/// let difference = first_difference(ours, theirs).unwrap();
/// let text = difference.to_string();
/// assert!(text.starts_with(
///     "`.value` is `f64` (8 bytes at offset 0, aligned to 8) here and \
///      `u64` (8 bytes at offset 0, aligned to 8) there\n"
/// ), "{text}");
/// ```
pub fn first_difference(ours: &str, theirs: impl AsRef<[u8]>) -> Option<Difference> {
    let theirs = theirs.as_ref();
    if ours.as_bytes() == theirs {
        return None;
    }
    let same = ours.bytes().zip(theirs).take_while(|(a, b)| a == *b);
    let line = 1 + same.filter(|(a, _)| *a == b'\n').count();
    Some(Difference {
        line,
        ours: ours.to_owned(),
        theirs: printable(theirs),
    })
}

impl Difference {
    /// The number of the first line that differs, counted from 1.
    ///
    /// It may be one past the last line of one of the two, or of what is kept of `theirs`.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The description that this program made.
    pub fn ours(&self) -> &str {
        &self.ours
    }

    /// The description that was found, made printable and cut to 16 KiB.
    pub fn theirs(&self) -> &str {
        &self.theirs
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = self.ours.lines().nth(self.line - 1);
        let theirs = self.theirs.lines().nth(self.line - 1);
        match (ours.map(Line::parse), theirs.map(Line::parse)) {
            (Some(ours), Some(theirs)) => match (ours.path(), theirs.path()) {
                (Some(a), Some(b)) if a == b => {
                    write!(
                        f,
                        "`{a}` is {} here and {} there",
                        Place(ours),
                        Place(theirs)
                    )?;
                }
                _ => write!(f, "{ours} here stands where {theirs} stands there")?,
            },
            (Some(ours), None) => write!(f, "{ours} is missing there")?,
            (None, Some(theirs)) => write!(f, "{theirs} is missing here")?,
            (None, None) => f.write_str("the descriptions end differently")?,
        }
        f.write_str("\nhere (offset, size, alignment, field, type):")?;
        self.ours
            .lines()
            .try_for_each(|line| write!(f, "\n    {line}"))?;
        f.write_str("\nthere:")?;
        self.theirs
            .lines()
            .try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// A line of a description.
#[derive(Clone, Copy)]
enum Line<'a> {
    Part {
        offset: &'a str,
        size: &'a str,
        align: &'a str,
        path: &'a str,
        kind: &'a str,
    },
    Unknown(&'a str),
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let mut columns = line.splitn(5, ' ');
        let mut next = || columns.next();
        match (next(), next(), next(), next(), next()) {
            (Some(offset), Some(size), Some(align), Some(path), Some(kind)) => Self::Part {
                offset,
                size,
                align,
                path,
                kind,
            },
            _ => Self::Unknown(line),
        }
    }

    fn path(self) -> Option<&'a str> {
        match self {
            Self::Part { path, .. } => Some(path),
            Self::Unknown(_) => None,
        }
    }
}

/// Prints a part with its path: `.value` as `f64` (...).
impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { path, .. } => write!(f, "`{path}`, {},", Place(*self)),
            Self::Unknown(line) => write!(f, "`{line}`"),
        }
    }
}

/// Prints a part without its path.
struct Place<'a>(Line<'a>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Line::Part {
                offset,
                size,
                align,
                kind,
                ..
            } => write!(
                f,
                "`{kind}` ({size} bytes at offset {offset}, aligned to {align})"
            ),
            Line::Unknown(line) => write!(f, "`{line}`"),
        }
    }
}

/// The text in `bytes`, cut, with nothing in it that could play tricks on a terminal.
fn printable(bytes: &[u8]) -> String {
    let cut = bytes.len() > SHOWN;
    let text = String::from_utf8_lossy(bytes.get(..SHOWN).unwrap_or(bytes));
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || (c == ' ' || !c.is_whitespace()) && !c.is_control() && !is_invisible(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
    }
    if cut {
        shown.push_str("...\n");
    }
    shown
}

/// Whether a character turns the direction of text or takes no room.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    /// The first line of what is printed about two types that differ.
    fn told<A: Message, B: Message>() -> String {
        let difference = first_difference(&A::LAYOUT.describe(), B::LAYOUT.describe());
        let text = difference.expect("the layouts differ").to_string();
        text.lines().next().expect("something is told").to_owned()
    }

    macro_rules! message {
        ($module:ident: $($item:tt)*) => {
            mod $module {
                #![allow(dead_code)]
                #[derive(Clone, Copy, crate::Message)]
                $($item)*
            }
        };
    }

    message!(base: #[repr(C)] pub struct M { a: u32, b: u32, c: u64 });
    message!(same: #[repr(C)] pub struct M { a: u32, b: u32, c: u64 });
    message!(renamed: #[repr(C)] pub struct M { a: u32, bb: u32, c: u64 });
    message!(swapped: #[repr(C)] pub struct M { b: u32, a: u32, c: u64 });
    message!(typed: #[repr(C)] pub struct M { a: u32, b: f32, c: u64 });
    message!(moved: #[repr(C)] pub struct M { a: u32, gap: u32, b: u32, d: u32, c: u64 });
    message!(longer: #[repr(C)] pub struct M { a: u32, b: u32, c: u64, d: u64 });
    message!(aligned: #[repr(C, align(16))] pub struct M { a: u32, b: u32, c: u64 });
    message!(other: #[repr(C)] pub struct N { a: u32, b: u32, c: u64 });

    message!(two: #[repr(u8)] pub enum E { A = 1, B = 2 });
    message!(three: #[repr(u8)] pub enum E { A = 1, B = 2, C = 3 });
    message!(valued: #[repr(u8)] pub enum E { A = 1, B = 3 });
    message!(wide: #[repr(u16)] pub enum E { A = 1, B = 2 });

    #[test]
    fn same_layout_has_no_difference() {
        assert_eq!(
            first_difference(&base::M::LAYOUT.describe(), same::M::LAYOUT.describe()),
            None
        );
    }

    #[test]
    fn every_kind_of_change_is_told() {
        assert_eq!(
            told::<base::M, renamed::M>(),
            "`.b`, `u32` (4 bytes at offset 4, aligned to 4), here stands where \
             `.bb`, `u32` (4 bytes at offset 4, aligned to 4), stands there"
        );
        assert_eq!(
            told::<base::M, typed::M>(),
            "`.b` is `u32` (4 bytes at offset 4, aligned to 4) here and \
             `f32` (4 bytes at offset 4, aligned to 4) there"
        );
        assert!(told::<base::M, swapped::M>().starts_with("`.a`"));
        assert!(told::<base::M, moved::M>().starts_with("`.` is `M` (16 bytes"));
        assert!(told::<base::M, longer::M>().starts_with("`.` is `M` (16 bytes"));
        assert!(told::<base::M, aligned::M>().contains("aligned to 16"));
        assert!(told::<base::M, other::N>().contains("`N`"));
        assert!(told::<base::M, u64>().contains("`u64`"));
        assert!(told::<[u8; 4], [u8; 5]>().contains("[u8; 5]"));
        assert_eq!(
            told::<two::E, three::E>(),
            "`::C`, `= 3` (1 bytes at offset 0, aligned to 1), is missing here"
        );
        assert!(told::<three::E, two::E>().contains("is missing there"));
        assert!(told::<two::E, valued::E>().starts_with("`::B` is `= 2`"));
        assert!(told::<two::E, wide::E>().contains("`E: u16`"));
    }

    #[test]
    fn both_layouts_are_printed() {
        let ours = base::M::LAYOUT.describe();
        let theirs = typed::M::LAYOUT.describe();
        let difference = first_difference(&ours, &theirs).expect("the layouts differ");
        assert_eq!((difference.line(), difference.ours()), (3, ours.as_str()));
        assert_eq!(difference.theirs(), theirs);
        let text = difference.to_string();
        assert!(text.contains("\n    4 4 4 .b u32\n"), "{text}");
        assert!(text.contains("\n    4 4 4 .b f32\n"), "{text}");
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let ours = base::M::LAYOUT.describe();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state = state.wrapping_mul(0xd129_0d5f_9a4c_3e35).wrapping_add(1);
            (state >> 33) as usize
        };
        for round in 0..if cfg!(miri) { 50 } else { 5_000 } {
            let mut theirs = ours.clone().into_bytes();
            for _ in 0..random() % 4 {
                let at = random() % theirs.len();
                theirs[at] = random() as u8;
            }
            theirs.truncate(random() % (theirs.len() + 1));
            if round % 3 == 0 {
                theirs.extend((0..random() % 100).map(|_| random() as u8));
            }
            match first_difference(&ours, &theirs) {
                None => assert_eq!(theirs, ours.as_bytes()),
                Some(difference) => {
                    let text = difference.to_string();
                    assert!(
                        text.chars().all(|c| c == '\n' || !c.is_control()),
                        "{text:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn odd_descriptions_are_shown_safely() {
        let ours = "0 4 4 . u32\n";
        let told = |theirs: &[u8]| first_difference(ours, theirs).expect("differs").to_string();
        assert!(told(b"").contains("is missing there"));
        assert!(told(b"\n\n\n").contains("stands there"));
        assert!(told(b"0 4 4 . u32").contains("here"));
        assert!(told(b"0 4 4 . u32\r\n").contains("\\u{d}"));
        assert!(told(b"\x1b[2J").contains("\\u{1b}[2J"));
        assert!(told("\u{202e}".as_bytes()).contains("\\u{202e}"));
        assert!(told(&[0xff; 100_000]).len() < 100_000);
        let long = ours.repeat(100_000);
        assert!(told(long.as_bytes()).len() < 50_000);
    }
}
