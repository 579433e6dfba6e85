//! The files of the repository.

use super::source::Source;
use std::fs;
use std::path::{Path, PathBuf};

/// The root that is checked: this repository, or the checkout that `HOUSE_ROOT` names.
pub fn root() -> PathBuf {
    std::env::var_os("HOUSE_ROOT").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The contents of a file under the root.
pub fn text(path: &str) -> String {
    let full = root().join(path);
    fs::read_to_string(&full).unwrap_or_else(|why| panic!("cannot read {}: {why}", full.display()))
}

/// Every file below `folder` (relative to the root) that `wanted` takes, sorted; nothing if there is
/// no such folder. Build products, fuzzing corpora and what git keeps for itself are left out.
pub fn files(folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let root = root();
    let mut open = vec![root.join(folder)];
    let mut found = Vec::new();
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a folder that can be listed").path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                open.extend((!is_product(&path)).then_some(path));
            } else {
                found.extend(relative(&root, &path).filter(|name| wanted(name)));
            }
        }
    }
    found.sort();
    found
}

fn is_product(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    matches!(
        name,
        Some("target" | ".git" | "corpus" | "artifacts" | "node_modules")
    )
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    Some(path.strip_prefix(root).ok()?.to_str()?.to_owned())
}

/// Every Rust file below `folder`, read; files that are modules for tests only are marked as such.
pub fn sources(folder: &str) -> Vec<Source> {
    let names = files(folder, |name| name.ends_with(".rs"));
    let read = |name: &String| Source::read(name, &text(name));
    mark_test_files(names.iter().map(read).collect())
}

/// Marks the files that another file declares with `#[cfg(test)] mod name;` or its like.
pub fn mark_test_files(mut sources: Vec<Source>) -> Vec<Source> {
    let mut gated = Vec::new();
    for source in &sources {
        for module in source.test_modules() {
            gated.push(format!("{}{module}.rs", folder_of(&source.path)));
            gated.push(format!("{}{module}/", folder_of(&source.path)));
        }
    }
    for source in &mut sources {
        let is_gated = |gate: &String| source.path == *gate || source.path.starts_with(gate);
        if gated.iter().any(is_gated) {
            source.mark_all_as_test();
        }
    }
    sources
}

/// Where the modules that a file declares stand: `src/a.rs` and `src/a/mod.rs` keep them in `src/a/`.
fn folder_of(path: &str) -> String {
    let stem = path.trim_end_matches(".rs");
    for root in ["/mod", "/lib", "/main"] {
        if let Some(folder) = stem.strip_suffix(root) {
            return format!("{folder}/");
        }
    }
    format!("{stem}/")
}
