//! Names that belong to one test, and the proof that it leaves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Where named objects and named semaphores lie.
const DIRECTORY: &str = "/dev/shm";

/// Makes a name (`/stem-pid-count`) that no other test uses.
#[must_use]
pub fn unique_name(stem: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("/{stem}-{}-{count}", process::id())
}

/// Watches the named objects whose names begin alike, and lets the test fail if it leaves new ones.
///
/// When dropped it unlinks what is new, and then panics if there was anything (unless the test is
/// failing already, in which case it says so). It looks at plain names, at hidden ones (a leading
/// dot), and at named semaphores.
///
/// # Examples
///
/// ```
/// use tombolo_kit::Litter;
///
/// let litter = Litter::watch("doc-litter");
/// let name = litter.name("ring");
/// assert!(name.starts_with("/doc-litter-"));
/// assert!(litter.left().is_empty());
/// ```
#[derive(Debug)]
pub struct Litter {
    prefix: String,
    before: BTreeSet<String>,
}

impl Litter {
    /// Begins to watch names that begin with `stem` and the process's id: those of this test only.
    ///
    /// # Panics
    ///
    /// If the directory of shared memory cannot be read.
    #[must_use]
    pub fn watch(stem: &str) -> Self {
        Self::watch_prefix(&format!("{stem}-{}-", process::id()))
    }

    /// Begins to watch all names that begin with `prefix`, whoever makes them.
    ///
    /// # Panics
    ///
    /// If the directory of shared memory cannot be read.
    #[must_use]
    pub fn watch_prefix(prefix: &str) -> Self {
        let prefix = prefix.trim_start_matches('/').to_owned();
        let before = names(&prefix);
        Self { prefix, before }
    }

    /// A name that is watched: a slash, the prefix and `suffix`.
    #[must_use]
    pub fn name(&self, suffix: &str) -> String {
        format!("/{}{suffix}", self.prefix)
    }

    /// What is new by now.
    ///
    /// # Panics
    ///
    /// If the directory of shared memory cannot be read.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        names(&self.prefix)
            .difference(&self.before)
            .cloned()
            .collect()
    }
}

impl Drop for Litter {
    fn drop(&mut self) {
        let left = self.left();
        for name in &left {
            // Someone else may have been faster.
            let _ = fs::remove_file(Path::new(DIRECTORY).join(name));
        }
        if !left.is_empty() && thread::panicking() {
            eprintln!("left in {DIRECTORY}, now removed: {left:?}");
        } else {
            assert!(
                left.is_empty(),
                "left in {DIRECTORY}, now removed: {left:?}"
            );
        }
    }
}

/// The names in the directory that begin with a prefix.
fn names(prefix: &str) -> BTreeSet<String> {
    fs::read_dir(DIRECTORY)
        .expect("the directory of shared memory can be read")
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let plain = name.strip_prefix("sem.").unwrap_or(name);
            plain.trim_start_matches('.').starts_with(prefix)
        })
        .collect()
}
