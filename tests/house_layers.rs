//! Imports point down only.
//!
//! The table of layers stands here as data. Every path in `src/` is read, in `use` lines and in the
//! middle of the code, and each that points up or sideways is named with the rule that it breaks.

mod house;

use house::paths::{Exports, Named, exports, module_path, named_paths};
use house::source::{Kind, Source};
use house::{expect_caught, expect_clean, tree};

/// One row of the table of layers.
struct Layer {
    level: u8,
    modules: &'static [&'static str],
    /// The levels it may import from.
    may: &'static [u8],
    /// The crates it may name beside std.
    crates: &'static [&'static str],
    /// Whether modules of this level may import one another.
    neighbours: bool,
}

const LAYERS: &[Layer] = &[
    Layer {
        level: 6,
        modules: &["inspect", "gather", "stream", "queue"],
        may: &[0, 1, 2, 3, 4, 5],
        crates: &["thiserror"],
        neighbours: false,
    },
    Layer {
        level: 5,
        modules: &["segment", "sync", "ring", "sysv"],
        may: &[0, 1, 2, 3, 4],
        crates: &["thiserror"],
        neighbours: false,
    },
    Layer {
        level: 4,
        modules: &["wait"],
        may: &[0, 1],
        crates: &["parking_lot_core"],
        neighbours: false,
    },
    Layer {
        level: 3,
        modules: &["object", "participant"],
        may: &[0, 1, 2],
        crates: &[],
        neighbours: false,
    },
    Layer {
        level: 2,
        modules: &["layout"],
        may: &[0, 1],
        crates: &[],
        neighbours: false,
    },
    Layer {
        level: 1,
        modules: &["sys"],
        may: &[0],
        crates: &["libc", "nix", "memmap2"],
        neighbours: false,
    },
    Layer {
        level: 0,
        modules: &["error", "message", "primitive", "name"],
        may: &[],
        crates: &["thiserror", "tombolo_derive", "loom"],
        neighbours: true,
    },
];

/// Neighbours of which the first stands on the second: a handle on an object holds its process's attachment, and a
/// System V segment is one whose memory comes from elsewhere.
const STANDS_ON: &[(&str, &str)] = &[("object", "participant"), ("sysv", "segment")];

/// The crates that the library depends on; each may be named only where the table says so.
const CRATES: &[&str] = &[
    "libc",
    "nix",
    "memmap2",
    "parking_lot_core",
    "thiserror",
    "tombolo_derive",
    "loom",
];

/// Where `cfg` may stand.
const MAY_CONFIGURE: &[&str] = &["sys", "primitive"];
/// Where std's atomics may be named; all others take those of `primitive`, so that loom sees them.
const MAY_NAME_ATOMICS: &[&str] = &["sys", "primitive"];
/// The file that makes std's own atomics objects, for users who name them so.
const EXPORTS_ATOMICS: &str = "src/sync/atomic.rs";
/// Where a fence may stand, and a thread may sleep.
const MAY_FENCE: &[&str] = &["wait", "primitive"];

fn layer_of(module: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|row| row.modules.contains(&module))
}

fn check_path(named: &Named, module: &str, exports: &Exports) -> Option<String> {
    let home = layer_of(module)?;
    let shown = named.path.join("::");
    let foreign = named.path.iter().find(|part| {
        let known = CRATES.iter().any(|name| name == part);
        known && !home.crates.contains(&part.as_str())
    });
    if let (Some(name), false) = (foreign, named.test) {
        let owners: Vec<&str> = LAYERS
            .iter()
            .filter(|row| row.crates.contains(&name.as_str()))
            .flat_map(|row| row.modules.iter().copied())
            .collect();
        return Some(format!(
            "`{module}` names the crate `{name}` (`{shown}`), which only {} may name",
            owners.join(", ")
        ));
    }
    if named.path.first().is_none_or(|part| part != "crate") {
        return None;
    }
    let Some(first) = named.path.get(1).filter(|name| *name != "*") else {
        return Some(format!(
            "`{module}` imports the crate's root as a whole (`{shown}`): name the module"
        ));
    };
    let target = exports.get(first).filter(|_| layer_of(first).is_none());
    let target = target.unwrap_or(first).as_str();
    let Some(there) = layer_of(target) else {
        return Some(format!(
            "`{module}` names `{shown}`, which belongs to no module of the table of layers"
        ));
    };
    let stands_on = STANDS_ON.contains(&(module, target));
    if target == module || home.may.contains(&there.level) || stands_on {
        return None;
    }
    if there.level == home.level {
        let beside = format!("layer {} is {}", home.level, home.modules.join(" | "));
        return (!home.neighbours).then(|| {
            format!("`{module}` imports its neighbour `{target}` (`{shown}`), but {beside}, none of which imports another")
        });
    }
    Some(format!(
        "`{module}` (layer {}) imports `{target}` (layer {}) as `{shown}`, but imports point down only: layer {} may name {:?}",
        home.level, there.level, home.level, home.may
    ))
}

/// `cfg` outside the modules that may have it, except what keeps a module or a test out of the build.
fn check_configuration(source: &Source, module: &str) -> Vec<(usize, String)> {
    if MAY_CONFIGURE.contains(&module) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for at in 0..source.tokens.len() {
        let token = &source.tokens[at];
        let configures = ["cfg", "cfg_attr"].iter().any(|name| token.is(name));
        let asks = configures && source.is_word(at + 1, "!");
        let opens = configures && source.is_word(at + 1, "(");
        let attribute = opens && at > 0 && source.is_word(at - 1, "[");
        if token.test || !(asks || attribute) {
            continue;
        }
        let open = if asks { at + 2 } else { at + 1 };
        let end = source.past_bracket(open);
        let words: Vec<&str> = source.tokens[open..end]
            .iter()
            .filter(|token| token.kind == Kind::Word)
            .map(|token| token.text.as_str())
            .collect();
        let of_the_house = [
            "test", "loom", "miri", "doctest", "docsrs", "all", "any", "not",
        ];
        // A whole module, an import or a set of assertions may be kept from the models.
        let gates_module = attribute && {
            let next = source.past_attributes(end + 1);
            (next..next + 10)
                .take_while(|at| !source.is_word(*at, ";") && !source.is_word(*at, "{"))
                .any(|at| {
                    let asserts = source.is_word(at, "const") && source.is_word(at + 1, "_");
                    source.is_word(at, "mod") || source.is_word(at, "use") || asserts
                })
        };
        let documents = token.is("cfg_attr") && words.first() == Some(&"docsrs");
        let allowed = gates_module && words.iter().all(|word| of_the_house.contains(word));
        if !allowed && !documents {
            let text = format!(
                "`{module}` has `cfg({})`, but only {} may know of platforms",
                words.join(" "),
                MAY_CONFIGURE.join(" and ")
            );
            found.push((token.line, text));
        }
    }
    found
}

/// `target_os` outside `sys`, fences and sleeps outside `wait`, std's atomics outside `primitive`.
fn check_words(source: &Source, module: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if token.test || token.kind != Kind::Word {
            continue;
        }
        let called = source.is_word(at + 1, "(") && !(at > 0 && source.is_word(at - 1, "fn"));
        let on_thread = at > 1 && source.is_word(at - 1, "::") && source.is_word(at - 2, "thread");
        let text = match token.text.as_str() {
            "target_os" | "target_env" | "target_family" if module != "sys" => {
                format!("`{module}` names `{}`, but only sys may", token.text)
            }
            "fence" if called && !MAY_FENCE.contains(&module) => {
                format!("`{module}` has a fence, but the fences stand in wait")
            }
            "sleep" | "park" | "park_timeout" if on_thread && !MAY_FENCE.contains(&module) => {
                format!(
                    "`{module}` calls `thread::{}`, but only wait sleeps",
                    token.text
                )
            }
            _ => continue,
        };
        found.push((token.line, text));
    }
    for named in named_paths(source) {
        let path: Vec<&str> = named.path.iter().map(String::as_str).collect();
        let foreign = matches!(path[..], ["std" | "core", "sync", "atomic", name] if name != "Ordering")
            || matches!(path[..], ["std" | "core", "sync", "atomic", name, _, ..] if name != "Ordering");
        let may = MAY_NAME_ATOMICS.contains(&module) || source.path == EXPORTS_ATOMICS;
        if foreign && !named.test && !may {
            let text = format!(
                "`{module}` names `{}`, but takes its atomics from primitive, so that loom sees them",
                path.join("::")
            );
            found.push((named.line, text));
        }
    }
    found
}

/// Every broken rule in `sources` (files of `src/`), each as a sentence with its file and line.
fn check(sources: &[Source]) -> Vec<String> {
    let exports = exports(sources);
    let mut found = Vec::new();
    for source in sources {
        let home = module_path(&source.path);
        let module = home.first().map_or("lib", String::as_str);
        let mut lines = check_configuration(source, module);
        lines.extend(check_words(source, module));
        if module != "lib" && layer_of(module).is_none() {
            lines.push((
                1,
                format!("`{module}` stands in no layer: give it a row in the table"),
            ));
        }
        for named in named_paths(source) {
            lines.extend(check_path(&named, module, &exports).map(|text| (named.line, text)));
        }
        lines.sort();
        lines.dedup();
        let sentence = |(line, text): (usize, String)| format!("{}:{line}: {text}", source.path);
        found.extend(lines.into_iter().map(sentence));
    }
    found
}

/// Files outside the library that reach into `src/` instead of using the public API.
fn check_outside(source: &Source) -> Vec<String> {
    let reaches = |text: &str| {
        let own = text.strip_prefix("src/").is_some();
        text.ends_with(".rs") && (text.contains("../src/") || own)
    };
    let included = |at: usize| {
        source.is_word(at.wrapping_sub(2), "path") || source.is_word(at.wrapping_sub(3), "include")
    };
    (0..source.tokens.len())
        .filter(|at| source.tokens[*at].kind == Kind::Text && included(*at))
        .filter(|at| reaches(&source.tokens[*at].text))
        .map(|at| {
            format!(
                "{}:{}: takes in `{}`, but layer 7 knows the public API only",
                source.path, source.tokens[at].line, source.tokens[at].text
            )
        })
        .collect()
}

#[test]
fn imports_point_down() {
    expect_clean("layers", &check(&tree::sources("src")));
}

#[test]
fn outsiders_use_the_public_api() {
    let folders = ["tests", "examples", "bench", "cli"];
    let sources = folders.iter().flat_map(|folder| tree::sources(folder));
    let found: Vec<String> = sources.flat_map(|source| check_outside(&source)).collect();
    expect_clean("layers", &found);
}

fn plant(files: &[(&str, &str)]) -> Vec<String> {
    let read = |(path, text): &(&str, &str)| Source::read(path, text);
    check(&tree::mark_test_files(files.iter().map(read).collect()))
}

#[test]
fn what_points_down_passes() {
    let found = plant(&[
        (
            "src/lib.rs",
            "pub use error::Error;\n#[cfg(loom)]\nmod models;\nextern crate self as tombolo;",
        ),
        (
            "src/ring/spsc.rs",
            "use crate::{error, wait::{Event, self}, Error};\nuse super::ends::End;\n\
             use std::sync::atomic::Ordering;\nfn f() -> impl Sized + use<> { crate::sys::page() }",
        ),
        (
            "src/sys/map.rs",
            "use libc::c_int;\n#[cfg(target_os = \"linux\")]\nfn f() { nix::f(); }",
        ),
        (
            "src/wait/mod.rs",
            "use parking_lot_core::SpinWait;\nfn f() { fence(SeqCst) }",
        ),
        (
            "src/error.rs",
            "use thiserror::Error;\nuse crate::message::Table;",
        ),
        (
            "src/layout.rs",
            "// use crate::ring::Ring;\n/* crate::ring */ const A: &str = \"crate::ring::Ring\";\n\
             #[cfg(test)]\nmod tests { use super::*; use nix::unistd::fork; fn f() { if cfg!(miri) {} } }",
        ),
        (
            "src/object.rs",
            "#[cfg(all(test, not(loom)))]\nmod proofs;\n#[cfg(not(loom))]\nconst _: () = {};\n\
             #[cfg(any(loom, test))]\nfn on_the_heap() {}",
        ),
        ("src/object/proofs.rs", "use libc::fork;"),
        (
            "src/object/shared.rs",
            "use crate::participant::Attachment;",
        ),
        (
            "src/sync/poison.rs",
            "#[derive(thiserror::Error)] enum E {}",
        ),
        (EXPORTS_ATOMICS, "pub use std::sync::atomic::AtomicU64;"),
    ]);
    expect_clean("layers", &found);
}

#[test]
fn planted_import_upwards_is_caught() {
    let words = ["point down only", "layer 2", "layer 4", ":2:"];
    let found = plant(&[("src/layout/header.rs", "\nuse crate::wait::Event;")]);
    expect_caught(&found, 1, &words);
    let found = plant(&[(
        "src/layout/header.rs",
        "\nuse crate::{error, wait::{Event}};",
    )]);
    expect_caught(&found, 1, &words);
    let found = plant(&[("src/layout.rs", "\nfn f() { crate::wait::wake(); }")]);
    expect_caught(&found, 1, &words);
    let found = plant(&[("src/layout/header.rs", "\nuse super::super::wait::Event;")]);
    expect_caught(&found, 1, &words);
    let found = plant(&[(
        "src/layout.rs",
        "\nmod inner { fn f() { super::super::wait::f() } }",
    )]);
    expect_caught(&found, 1, &words);
    let found = plant(&[(
        "src/layout.rs",
        "\nmacro_rules! m { () => { $crate::wait::f() } }",
    )]);
    expect_caught(&found, 1, &words);
    let found = plant(&[("src/wait.rs", "use crate::object::Shared;")]);
    expect_caught(&found, 1, &["layer 4 may name [0, 1]"]);
}

#[test]
fn planted_import_through_the_root_is_caught() {
    let root = (
        "src/lib.rs",
        "pub use wait::Event as Bell;\npub use segment::{Segment, Options};",
    );
    let found = plant(&[root, ("src/sys.rs", "use crate::Segment;")]);
    expect_caught(&found, 1, &["src/sys.rs:1", "`segment` (layer 5)"]);
    let found = plant(&[root, ("src/sys.rs", "use crate::Bell;")]);
    expect_caught(&found, 1, &["`wait` (layer 4)"]);
    let found = plant(&[root, ("src/sys.rs", "fn f(_: tombolo::Options) {}")]);
    expect_caught(&found, 1, &["`segment` (layer 5)"]);
    let found = plant(&[root, ("src/sys.rs", "fn f() { tombolo::Options::new() }")]);
    expect_caught(&found, 1, &["`segment` (layer 5)"]);
    let found = plant(&[root, ("src/sys.rs", "use crate::*;")]);
    expect_caught(&found, 1, &["root as a whole"]);
    let found = plant(&[root, ("src/sys.rs", "use crate::Nothing;")]);
    expect_caught(&found, 1, &["no module of the table"]);
}

#[test]
fn planted_import_of_a_neighbour_is_caught() {
    let found = plant(&[("src/ring/mod.rs", "use crate::segment::Segment;")]);
    expect_caught(&found, 1, &["neighbour", "segment | sync | ring"]);
    let found = plant(&[(
        "src/sync/mutex.rs",
        "type R = super::super::ring::spsc::Producer;",
    )]);
    expect_caught(&found, 1, &["neighbour", "`ring`"]);
    let found = plant(&[("src/participant/table.rs", "use crate::object::Shared;")]);
    expect_caught(&found, 1, &["neighbour", "`object`"]);
    let found = plant(&[("src/error.rs", "use crate::sys::Map;")]);
    expect_caught(&found, 1, &["`error` (layer 0)", "`sys` (layer 1)"]);
}

#[test]
fn planted_module_without_a_layer_is_caught() {
    let found = plant(&[("src/utils.rs", "fn f() {}")]);
    expect_caught(&found, 1, &["src/utils.rs:1", "stands in no layer"]);
}

#[test]
fn planted_foreign_crate_is_caught() {
    for text in [
        "use libc;",
        "fn f() { libc::getpid(); }",
        "fn f() { ::libc::getpid(); }",
        "use crate::sys::libc::c_int;",
        "extern crate libc;",
    ] {
        expect_caught(
            &plant(&[("src/ring.rs", text)]),
            1,
            &["crate `libc`", "only sys may"],
        );
    }
    let found = plant(&[("src/segment.rs", "fn f() { nix::unistd::fork(); }")]);
    expect_caught(&found, 1, &["crate `nix`", "only sys may"]);
    let found = plant(&[(
        "src/sys.rs",
        "use memmap2::Mmap;\nuse parking_lot_core::SpinWait;",
    )]);
    expect_caught(&found, 1, &["`parking_lot_core`", "only wait may"]);
    let found = plant(&[("src/layout.rs", "#[derive(thiserror::Error)] enum E {}")]);
    expect_caught(
        &found,
        1,
        &["`thiserror`", "segment, sync, ring, sysv, error"],
    );
}

#[test]
fn planted_configuration_is_caught() {
    for text in [
        "#[cfg(unix)]\nfn f() {}",
        "fn f() { if cfg!(debug_assertions) {} }",
        "#[cfg_attr(loom, inline)]\nfn f() {}",
        "#[cfg(not(loom))]\nfn f() {}",
    ] {
        expect_caught(
            &plant(&[("src/ring.rs", text)]),
            1,
            &["src/ring.rs:1", "know of platforms"],
        );
    }
    let found = plant(&[("src/primitive.rs", "#[cfg(target_os = \"linux\")]\nmod a;")]);
    expect_caught(&found, 1, &["`target_os`", "only sys may"]);
}

#[test]
fn planted_fence_and_sleep_are_caught() {
    let found = plant(&[("src/ring.rs", "fn f() { fence(SeqCst); }")]);
    expect_caught(&found, 1, &["fences stand in wait"]);
    let found = plant(&[("src/participant.rs", "fn f() { std::thread::sleep(d); }")]);
    expect_caught(&found, 1, &["only wait sleeps"]);
}

#[test]
fn planted_atomic_of_std_is_caught() {
    let found = plant(&[(
        "src/ring.rs",
        "use std::sync::atomic::{AtomicU32, Ordering};",
    )]);
    expect_caught(&found, 1, &["AtomicU32", "from primitive"]);
    let found = plant(&[(
        "src/ring.rs",
        "fn f() { core::sync::atomic::AtomicU64::new(0); }",
    )]);
    expect_caught(&found, 1, &["AtomicU64", "from primitive"]);
}

#[test]
fn planted_reach_into_the_library_is_caught() {
    let outside = |text| check_outside(&Source::read("tests/a.rs", text));
    let found = outside("#[path = \"../src/ring.rs\"]\nmod ring;");
    expect_caught(&found, 1, &["tests/a.rs:1", "public API only"]);
    let found = outside("include!(\"../src/ring.rs\");");
    expect_caught(&found, 1, &["public API only"]);
    expect_clean("layers", &outside("const A: &str = \"src/ring.rs\";"));
}
