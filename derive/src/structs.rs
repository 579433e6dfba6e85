//! The derive for structs: field by field, without gaps.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    DataStruct, DeriveInput, Error, Field, Index, Member, Result, WherePredicate,
    parse_quote_spanned,
};

use crate::repr::Repr;

/// The items of the implementation for a struct.
pub fn body(input: &DeriveInput, data: &DataStruct) -> Result<TokenStream> {
    let repr = Repr::of(&input.attrs)?;
    repr.refuse_packed()?;
    if !repr.in_order {
        return Err(Error::new_spanned(
            &input.ident,
            "a message has a layout that every compilation agrees on: add `#[repr(C)]`, or \
             `#[repr(transparent)]` if there is one field",
        ));
    }
    if data.fields.is_empty() {
        return Err(Error::new_spanned(
            &input.ident,
            "a struct without fields has no bytes and is no message",
        ));
    }

    let members: Vec<(Member, &Field)> = data.fields.members().zip(&data.fields).collect();
    let types: Vec<_> = members.iter().map(|(_, field)| &field.ty).collect();
    let name = input.ident.unraw().to_string();
    let checks = no_gaps(&name, &members);
    let fields = members.iter().map(|(member, field)| {
        let (name, ty) = (shown(member), &field.ty);
        quote_spanned! {at(ty)=>
            ::tombolo::message::Field::of::<#ty>(#name, ::core::mem::offset_of!(Self, #member))
        }
    });
    let any_bits = types
        .iter()
        .map(|ty| quote_spanned!(at(ty)=> <#ty as ::tombolo::Message>::ANY_BITS));
    let valid = members.iter().map(|(member, field)| {
        let ty = &field.ty;
        quote_spanned! {at(ty)=>
            ::tombolo::message::is_valid_at::<#ty>(bytes, ::core::mem::offset_of!(Self, #member))
        }
    });
    Ok(quote! {
        const LAYOUT: &'static ::tombolo::message::Layout = {
            #checks
            &::tombolo::message::Layout::structure::<Self>(#name, const { &[#(#fields),*] })
        };
        const ANY_BITS: bool = #(#any_bits)&&*;

        #[inline]
        fn is_valid(bytes: &[u8]) -> bool {
            bytes.len() == ::core::mem::size_of::<Self>() #(&& #valid)*
        }
    })
}

/// The bounds that each field is a message.
///
/// As bounds they are complained of once, at the field, and not at every use in the body.
pub fn bounds(data: &DataStruct) -> Vec<WherePredicate> {
    let bound = |field: &Field| {
        let ty = &field.ty;
        parse_quote_spanned!(at(ty)=> #ty: ::tombolo::Message)
    };
    data.fields.iter().map(bound).collect()
}

/// Assertions that each field starts where the one before it ends, and that the last one ends the
/// struct. The layout asserts the same as a whole; these name the place.
fn no_gaps(name: &str, members: &[(Member, &Field)]) -> TokenStream {
    let mut checks = TokenStream::new();
    let mut end = quote!(0);
    for (member, field) in members {
        let ty = &field.ty;
        let told = format!(
            "there is padding before field `{}` of `{name}`: order the fields so that there is \
             none, or write the gap as a field of its own, such as `_gap: [u8; 4]`",
            shown(member),
        );
        checks.extend(quote_spanned! {at(field)=>
            ::core::assert!(::core::mem::offset_of!(Self, #member) == #end, #told);
        });
        end = quote! {
            ::core::mem::offset_of!(Self, #member) + ::core::mem::size_of::<#ty>()
        };
    }
    let told = format!(
        "there is padding after the last field of `{name}`: order the fields so that there is \
         none, or write the gap as a field of its own, such as `_gap: [u8; 4]`"
    );
    quote! {
        #checks
        ::core::assert!(::core::mem::size_of::<Self>() == #end, #told);
    }
}

/// The place of a part of the source, with the names of the expansion, so that an error points there
/// and a struct written by another macro sees our variables all the same.
fn at(part: &impl Spanned) -> Span {
    Span::call_site().located_at(part.span())
}

/// The name of a field as it is written in the layout.
fn shown(member: &Member) -> String {
    match member {
        Member::Named(ident) => ident.unraw().to_string(),
        Member::Unnamed(Index { index, .. }) => index.to_string(),
    }
}
