//! The rule for names, and how a name becomes a file name of the shm directory.
//!
//! A name is 1 to 200 bytes of `[A-Za-z0-9._-]`, of which the first is a letter or a digit. A visible prefix is put
//! before it, so that [`list`](crate::Segment::list) and [`sweep`](crate::Segment::sweep) find ours and nobody else's:
//! `tombolo.NAME`, or `tombolo@NAMESPACE.NAME` inside a namespace, which keeps tests and tenants apart. A namespace is
//! 1 to 40 bytes of `[A-Za-z0-9_-]`. Neither can be taken for the other.

use crate::error::Error;

/// The longest name in bytes.
pub const MAX_NAME: usize = 200;
/// The longest namespace in bytes.
pub const MAX_NAMESPACE: usize = 40;

const PLAIN: &str = "tombolo.";
const SPACED: &str = "tombolo@";
const STAGING: &str = "tombolo#";
const COMPANION: &str = "tombolo%sysv.";

fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=MAX_NAME).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

fn is_namespace(space: &str) -> bool {
    let bytes = space.as_bytes();
    (1..=MAX_NAMESPACE).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(b))
}

/// Checks a name of a segment, an object or a semaphore.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::InvalidName {
        name: name.escape_debug().take(220).collect(),
    })
}

/// The file name in the shm directory that belongs to `name`.
pub(crate) fn file_name(namespace: Option<&str>, name: &str) -> Result<String, Error> {
    check(name)?;
    match namespace {
        None => Ok(format!("{PLAIN}{name}")),
        Some(space) if is_namespace(space) => Ok(format!("{SPACED}{space}.{name}")),
        Some(space) => Err(Error::InvalidName {
            name: space.escape_debug().take(220).collect(),
        }),
    }
}

/// The name behind a file name of the shm directory, if it is one of ours in this namespace.
pub(crate) fn parse<'a>(namespace: Option<&str>, file: &'a str) -> Option<&'a str> {
    let rest = match namespace {
        None => file.strip_prefix(PLAIN)?,
        Some(space) => file
            .strip_prefix(SPACED)?
            .strip_prefix(space)?
            .strip_prefix('.')?,
    };
    is_name(rest).then_some(rest)
}

/// The private name under which an object is made where the system has no unnamed files.
pub(crate) fn staging(file: &str, unique: u64) -> String {
    let short: String = file.chars().take(200).collect();
    format!("{STAGING}{unique:016x}.{short}")
}

/// The file that carries the lock bytes of the System V segment `id` of an IPC namespace.
pub(crate) fn companion(ipc_namespace: u64, id: i32) -> String {
    format!("{COMPANION}{ipc_namespace:x}.{id}")
}

/// The id of the System V segment of this IPC namespace whose companion has that file name.
pub(crate) fn parse_companion(ipc_namespace: u64, file: &str) -> Option<i32> {
    let (found, id) = file.strip_prefix(COMPANION)?.split_once('.')?;
    let id = id.parse().ok()?;
    (found == format!("{ipc_namespace:x}") && companion(ipc_namespace, id) == file).then_some(id)
}

/// Whether a file name is a staging name of ours for a name of this namespace.
pub(crate) fn is_staging(namespace: Option<&str>, file: &str) -> bool {
    let target = file
        .strip_prefix(STAGING)
        .and_then(|rest| rest.split_once('.'))
        .map(|(_, target)| target);
    match (target, namespace) {
        (None, _) => false,
        (Some(target), None) => target.starts_with(PLAIN),
        (Some(target), Some(space)) => target
            .strip_prefix(SPACED)
            .is_some_and(|t| t.strip_prefix(space).is_some_and(|t| t.starts_with('.'))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "7", "ticks", "a.b-c_d", &"x".repeat(200)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "/a",
            "a/b",
            "-a",
            "_a",
            "ä",
            "a b",
            "a\0",
            "a\n",
            &"x".repeat(201),
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn namespaces_do_not_mix() {
        let plain = file_name(None, "a.b").expect("valid");
        let spaced = file_name(Some("a"), "b").expect("valid");
        assert_ne!(plain, spaced);
        assert_eq!(parse(None, &plain), Some("a.b"));
        assert_eq!(parse(Some("a"), &spaced), Some("b"));
        assert_eq!(parse(None, &spaced), None);
        assert_eq!(parse(Some("a"), &plain), None);
        assert_eq!(parse(Some("aa"), &spaced), None);
        assert_eq!(parse(None, "sem.tombolo.x"), None);
        for bad in ["", "a.b", "a/b", "ä", &"x".repeat(41)] {
            assert!(file_name(Some(bad), "n").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_names_fit_into_a_file_name() {
        let file = file_name(Some(&"s".repeat(MAX_NAMESPACE)), &"n".repeat(MAX_NAME));
        let file = file.expect("valid");
        assert!(file.len() <= 251, "{}", file.len());
        let stage = staging(&file, u64::MAX);
        assert!(stage.len() <= 255, "{}", stage.len());
        assert!(is_staging(Some(&"s".repeat(MAX_NAMESPACE)), &stage));
        assert!(!is_staging(None, &stage));
        assert!(is_staging(None, &staging("tombolo.x", 1)));
        assert!(!is_staging(None, "tombolo.x"));
    }
}
