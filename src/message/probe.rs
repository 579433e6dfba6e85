//! The question whether a type is a message, asked by the expansion of the derive.

use std::marker::PhantomData;

use super::{Layout, Message};

/// Asks whether `T` is a message, and evaluates its layout if it is.
///
/// The derive looks at every type where it is defined, so that padding is found there. Asked by a
/// plain bound, a field that is no message would be complained of twice; `Probe::<T>::LAYOUT` is
/// silent then, since it is the constant of [`NoMessage`], which yields to our own where that exists.
pub struct Probe<T>(PhantomData<T>);

// `Copy` is part of `Message`, but the compiler asks for it only if it is written here.
impl<T: Message + Copy> Probe<T> {
    /// The layout.
    pub const LAYOUT: Option<&'static Layout> = Some(T::LAYOUT);
}

/// What [`Probe`] finds in a type that is no message.
pub trait NoMessage {
    /// No layout.
    const LAYOUT: Option<&'static Layout> = None;
}

impl<T> NoMessage for Probe<T> {}
