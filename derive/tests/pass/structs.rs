#![forbid(unsafe_code)]
#![deny(warnings)]

use tombolo::Message;
use tombolo::message::{Bytes, Maybe, Span, Str, as_bytes, from_bytes};

/// A message in a public module, with private fields, attributes and a raw name.
pub mod inner {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Message)]
    #[repr(transparent)]
    struct Hidden(u64);

    #[derive(Clone, Copy, Debug, PartialEq, Message)]
    #[repr(C)]
    pub struct Record {
        hidden: Hidden,
        /// When it was taken.
        #[doc(alias = "when")]
        r#type: u64,
        pub values: [(f32, u32); 2],
        at: Span,
        stop: Maybe<u32>,
        name: Str<11>,
        data: Bytes<4>,
        flag: bool,
        _gap: [u8; 8],
        letter: char,
        #[cfg(any())]
        missing: String,
    }

    impl Record {
        pub fn new() -> Self {
            Self {
                hidden: Hidden(9),
                r#type: 1,
                values: [(0.5, 2), (1.5, 3)],
                at: Span::ZERO,
                stop: Maybe::some(4),
                name: Str::prefix_of("name"),
                data: Bytes::from(*b"data"),
                flag: true,
                _gap: [0; 8],
                letter: 'x',
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(transparent)]
struct Meters(f64);

#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(C, align(16))]
struct Aligned(Meters, u64);

#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(C)]
struct Table<T, U: Default, const N: usize>
where
    T: PartialEq,
{
    rows: [T; N],
    last: U,
}

macro_rules! record {
    ($name:ident { $($field:ident: $type:ty),* }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Message)]
        #[repr(C)]
        struct $name {
            $($field: $type),*
        }
    };
}

record!(FromMacro { bytes: u32, offset: [f32; 2] });

fn there_and_back<T: Message + PartialEq + std::fmt::Debug>(value: T) {
    assert_eq!(from_bytes::<T>(as_bytes(&value)), Some(value));
}

fn main() {
    there_and_back(inner::Record::new());
    there_and_back(Meters(1.0));
    there_and_back(Aligned(Meters(1.0), 2));
    there_and_back(Table { rows: [Meters(1.0); 3], last: 7u64 });

    there_and_back(FromMacro { bytes: 1, offset: [2.0; 2] });

    #[derive(Clone, Copy, Debug, PartialEq, Message)]
    #[repr(C)]
    struct Local {
        bytes: u8,
    }
    there_and_back(Local { bytes: 1 });
}
