//! `#[derive(Message)]` for tombolo.
//!
//! Use it as `tombolo::Message`; this crate has no meaning of its own.

mod enums;
mod repr;
mod structs;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Generics, Result, parse_macro_input, parse_quote};

/// Implements `tombolo::Message` for a struct or an enum whose values may cross between processes.
///
/// Needs no `unsafe` where it is used, and works in a crate that forbids it. `Clone` and `Copy` are
/// derived beside it.
///
/// # Structs
///
/// With `repr(C)` or `repr(transparent)`, at least one field, and fields that are messages and stand
/// without gaps. A gap is written as a field of its own:
///
/// ```
/// use tombolo::Message;
///
/// #[derive(Clone, Copy, Message)]
/// #[repr(C)]
/// struct Sample {
///     time: u64,
///     value: f32,
///     _gap: [u8; 4],
/// }
/// ```
///
/// ```compile_fail
/// # use tombolo::Message;
/// #[derive(Clone, Copy, Message)]
/// #[repr(C)]
/// struct Sample {
///     time: u64,
///     value: f32,
/// }
/// ```
///
/// Type parameters get the bound `Message`. Gaps that depend on them are found where the type is
/// used:
///
/// ```
/// # use tombolo::Message;
/// #[derive(Clone, Copy, Message)]
/// #[repr(C)]
/// struct Stamped<T> {
///     time: u64,
///     value: T,
/// }
///
/// let stamped = Stamped { time: 1, value: 2.5 };
/// assert_eq!(tombolo::message::as_bytes(&stamped).len(), 16);
/// ```
///
/// # Enums
///
/// With `repr(u8)` or another integer of a fixed size up to 64 bits, at least one variant, and no
/// fields. What is received is checked to be one of the variants:
///
/// ```
/// # use tombolo::Message;
/// #[derive(Clone, Copy, Debug, PartialEq, Message)]
/// #[repr(u8)]
/// enum Light {
///     Red = 1,
///     Green = 2,
/// }
///
/// assert_eq!(tombolo::message::from_bytes(&[2]), Some(Light::Green));
/// assert_eq!(tombolo::message::from_bytes::<Light>(&[3]), None);
/// ```
#[proc_macro_derive(Message)]
pub fn derive_message(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(input)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn expand(mut input: DeriveInput) -> Result<TokenStream> {
    let mut bounds = Vec::new();
    let body = match &input.data {
        Data::Struct(data) => {
            bounds = structs::bounds(data);
            structs::body(&input, data)?
        }
        Data::Enum(data) => enums::body(&input, data)?,
        Data::Union(data) => {
            return Err(Error::new_spanned(
                data.union_token,
                "a union is no message: nothing tells the receiver which of its fields is valid",
            ));
        }
    };
    bound_parameters(&mut input.generics)?;
    input.generics.make_where_clause().predicates.extend(bounds);

    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    // Without parameters all is known now, so what is wrong is said here and not at the first use.
    let check = input.generics.params.is_empty().then(|| {
        quote! {
            const _: ::core::option::Option<&::tombolo::message::Layout> = {
                #[allow(unused_imports)]
                use ::tombolo::message::NoMessage as _;
                ::tombolo::message::Probe::<#name>::LAYOUT
            };
        }
    });
    Ok(quote! {
        // SAFETY: what `Message` asks is what the derive has checked, and what `LAYOUT` checks again.
        #[automatically_derived]
        unsafe impl #impl_generics ::tombolo::Message for #name #type_generics #where_clause {
            #body
        }
        #check
    })
}

/// Asks of each type parameter that it is a message; a lifetime is a borrow, and refused.
fn bound_parameters(generics: &mut Generics) -> Result<()> {
    if let Some(lifetime) = generics.lifetimes().next() {
        return Err(Error::new_spanned(
            lifetime,
            "a message borrows nothing: a reference means nothing in another process",
        ));
    }
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::tombolo::Message));
    }
    Ok(())
}
