//! The derive for enums: an integer that is one of the discriminants.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{DataEnum, DeriveInput, Error, Fields, Result};

use crate::repr::Repr;

/// The items of the implementation for an enum.
pub fn body(input: &DeriveInput, data: &DataEnum) -> Result<TokenStream> {
    let repr = Repr::of(&input.attrs)?;
    if data.variants.is_empty() {
        return Err(Error::new_spanned(
            &input.ident,
            "an enum without variants has no values and is no message",
        ));
    }
    if let Some(variant) = data
        .variants
        .iter()
        .find(|variant| !matches!(variant.fields, Fields::Unit))
    {
        return Err(Error::new_spanned(
            variant,
            "an enum with fields is no message: send a struct of an enum without fields and the \
             values, or `tombolo::message::Maybe`",
        ));
    }
    if let Some(word) = repr.pointer_sized {
        return Err(Error::new_spanned(
            &word,
            format!(
                "`{word}` has not one size in every program: use `u8` to `u64` or `i8` to `i64`"
            ),
        ));
    }
    let Some(integer) = repr.integer else {
        return Err(Error::new_spanned(
            &input.ident,
            "a message has a layout that every compilation agrees on: add `#[repr(u8)]`, or \
             another integer from `u8` to `u64` or `i8` to `i64`",
        ));
    };

    let name = input.ident.unraw().to_string();
    let idents: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let names = idents.iter().map(|ident| ident.unraw().to_string());
    Ok(quote! {
        const LAYOUT: &'static ::tombolo::message::Layout =
            &::tombolo::message::Layout::enumeration::<#integer>(
                #name,
                const { &[#(::tombolo::message::Variant::new(
                    #names,
                    Self::#idents as #integer as i128,
                )),*] },
            );
        const ANY_BITS: bool = false;

        #[inline]
        fn is_valid(bytes: &[u8]) -> bool {
            ::tombolo::message::from_bytes::<#integer>(bytes)
                .is_some_and(|value| false #(|| value == Self::#idents as #integer)*)
        }
    })
}
