//! Keys: by which number a segment is found.

use super::error::Error;
use crate::sys::sysv;
use std::fmt;
use std::path::Path;

/// The number by which programs that share nothing else find a segment.
///
/// A key that one made up, one made of a file's identity ([`Key::ftok`]), or none at all ([`Key::PRIVATE`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(i32);

impl Key {
    /// `IPC_PRIVATE`: no key. A segment made with it is new in any case, and found by its id only.
    pub const PRIVATE: Key = Key(sysv::PRIVATE);

    /// The key of this number. 0 is [`Key::PRIVATE`].
    pub const fn new(number: i32) -> Self {
        Self(number)
    }

    /// `ftok`: the key made of an existing file and a number from 1 on.
    ///
    /// It is made of the low bits of the file's inode and device numbers, so two files may have the same key, and a file
    /// that was removed and made anew has another one.
    ///
    /// # Errors
    ///
    /// [`Error::NoKey`] if the file cannot be looked at, above all if there is none, or if `id` is 0, which POSIX leaves
    /// open.
    pub fn ftok(path: impl AsRef<Path>, id: u8) -> Result<Self, Error> {
        let path = path.as_ref();
        let key = match id {
            0 => Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "the number is 0",
            )),
            id => sysv::ftok(path, id),
        };
        key.map(Self).map_err(|source| Error::NoKey {
            path: path.to_owned(),
            source,
        })
    }

    /// Its number.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Whether it is [`Key::PRIVATE`].
    pub const fn is_private(self) -> bool {
        self.0 == sysv::PRIVATE
    }
}

impl From<i32> for Key {
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_private() {
            true => f.write_str("no key"),
            false => write!(f, "key {:#010x}", self.0),
        }
    }
}
