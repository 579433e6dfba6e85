//! What the `repr` attributes of a type say.

use proc_macro2::Span;
use syn::{Attribute, Error, Ident, Result, parenthesized, token};

/// The integers that an enum may be kept as: they have one size everywhere.
const INTEGERS: [&str; 8] = ["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"];

/// The representation of a type.
#[derive(Default)]
pub struct Repr {
    /// `C` or `transparent`: fields stand in the order of the source.
    pub in_order: bool,
    /// An integer of a fixed size.
    pub integer: Option<Ident>,
    /// `usize` or `isize`.
    pub pointer_sized: Option<Ident>,
    /// Where `packed` stands.
    pub packed: Option<Span>,
}

impl Repr {
    /// Reads the `repr` attributes among `attributes`; other attributes are none of our business.
    pub fn of(attributes: &[Attribute]) -> Result<Self> {
        let mut repr = Self::default();
        for attribute in attributes {
            if !attribute.path().is_ident("repr") {
                continue;
            }
            attribute.parse_nested_meta(|meta| {
                let Some(word) = meta.path.get_ident() else {
                    return Ok(());
                };
                if word == "C" || word == "transparent" {
                    repr.in_order = true;
                } else if word == "packed" {
                    repr.packed = Some(word.span());
                } else if word == "usize" || word == "isize" {
                    repr.pointer_sized = Some(word.clone());
                } else if INTEGERS.iter().any(|integer| word == integer) {
                    repr.integer = Some(word.clone());
                }
                // The number in `packed(2)` and `align(16)`.
                if meta.input.peek(token::Paren) {
                    let number;
                    parenthesized!(number in meta.input);
                    number.parse::<proc_macro2::TokenStream>()?;
                }
                Ok(())
            })?;
        }
        Ok(repr)
    }

    /// Refuses packed types: a reference to a field of theirs may be unaligned.
    pub fn refuse_packed(&self) -> Result<()> {
        self.packed.map_or(Ok(()), |span| {
            Err(Error::new(
                span,
                "a packed struct is no message: references to its fields may be unaligned; order \
                 the fields so that there is no padding, or keep them as arrays of bytes",
            ))
        })
    }
}
