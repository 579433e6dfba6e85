//! The paths that a file names, resolved from the root of the crate.

use super::source::{Kind, Source};
use std::collections::BTreeMap;

/// A path that the code names: its segments from the crate's root (`crate` first) or from a crate.
pub struct Named {
    pub line: usize,
    pub path: Vec<String>,
    /// The name after `as`.
    pub alias: Option<String>,
    pub test: bool,
}

/// What the names in the crate's root stand for: re-exports of `lib.rs` and exported macros.
pub type Exports = BTreeMap<String, String>;

/// The modules from the crate's root down to the one that a file of `src/` holds.
pub fn module_path(file: &str) -> Vec<String> {
    let inner = file.trim_start_matches("src/").trim_end_matches(".rs");
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    if matches!(inner, "lib" | "main") {
        return Vec::new();
    }
    inner.split('/').map(str::to_owned).collect()
}

/// Every path that a file names and that leaves its own module.
pub fn named_paths(source: &Source) -> Vec<Named> {
    let home = module_path(&source.path);
    let mut found = Vec::new();
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut at = 0;
    while at < source.tokens.len() {
        inline.retain(|(_, end)| at < *end);
        if source.is_word(at, "mod") && source.is_word(at + 2, "{") {
            let name = source.tokens[at + 1].text.clone();
            inline.push((name, source.past_bracket(at + 2)));
            at += 3;
            continue;
        }
        let here: Vec<String> = home
            .iter()
            .cloned()
            .chain(inline.iter().map(|(name, _)| name.clone()))
            .collect();
        let starts_item = at == 0 || !source.is_word(at - 1, "+");
        if source.is_word(at, "use") && starts_item && !source.is_word(at + 1, "<") {
            let mut paths = Vec::new();
            at = use_tree(source, at + 1, &[], &mut paths);
            found.extend(paths.into_iter().map(|named| resolve(named, &here)));
        } else if source.is_word(at, "extern") && source.is_word(at + 1, "crate") {
            let named = Named {
                line: source.tokens[at].line,
                path: vec![source.tokens[at + 2].text.clone()],
                alias: None,
                test: source.tokens[at].test,
            };
            found.push(resolve(named, &here));
            at += 3;
        } else if let Some((named, end)) = inline_path(source, at) {
            found.push(resolve(named, &here));
            at = end;
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one tree of a `use` line and yields where it ends.
fn use_tree(source: &Source, mut at: usize, stem: &[String], out: &mut Vec<Named>) -> usize {
    let mut path = stem.to_vec();
    let mut line = source.tokens[at].line;
    let mut test = source.tokens[at].test;
    let mut branched = false;
    let mut alias = None;
    while at < source.tokens.len() {
        let token = &source.tokens[at];
        if token.is("::") {
            at += 1;
        } else if token.is("{") {
            branched = true;
            at += 1;
            while at < source.tokens.len() && !source.is_word(at, "}") {
                at = use_tree(source, at, &path, out);
                at += usize::from(source.is_word(at, ","));
            }
            at += 1;
        } else if token.is("as") {
            alias = source.tokens.get(at + 1).map(|name| name.text.clone());
            at += 2;
        } else if token.kind == Kind::Word || token.is("*") {
            (line, test) = (token.line, token.test);
            path.push(token.text.clone());
            at += 1;
        } else {
            break;
        }
    }
    if !branched {
        out.push(Named {
            line,
            path,
            alias,
            test,
        });
    }
    at
}

/// The path that begins at `at` in the middle of the code, if one does, and where it ends.
fn inline_path(source: &Source, at: usize) -> Option<(Named, usize)> {
    let token = &source.tokens[at];
    let continues = at > 0 && (source.is_word(at - 1, "::") || source.is_word(at - 1, "."));
    let from_root = at > 0
        && source.is_word(at - 1, "::")
        && (at == 1 || source.tokens[at - 2].kind != Kind::Word && !source.is_word(at - 2, ">"));
    if token.kind != Kind::Word || !source.is_word(at + 1, "::") || (continues && !from_root) {
        return None;
    }
    let mut path = vec![token.text.clone()];
    let mut end = at + 1;
    while source.is_word(end, "::") && source.tokens.get(end + 1)?.kind == Kind::Word {
        path.push(source.tokens[end + 1].text.clone());
        end += 2;
    }
    let named = Named {
        line: token.line,
        path,
        alias: None,
        test: token.test,
    };
    Some((named, end))
}

/// Turns `super` and `self` into a path from the crate's root.
fn resolve(mut named: Named, here: &[String]) -> Named {
    let ups = named.path.iter().take_while(|part| *part == "super");
    let ups = ups.count();
    let own = named.path.first().is_some_and(|part| part == "self");
    if ups > 0 || own {
        let base = &here[..here.len().saturating_sub(ups)];
        let rest = &named.path[ups.max(usize::from(own))..];
        named.path = std::iter::once("crate".to_owned())
            .chain(base.iter().cloned())
            .chain(rest.iter().filter(|part| *part != "self").cloned())
            .collect();
    } else if named.path.first().is_some_and(|part| part == "tombolo") {
        named.path[0] = "crate".to_owned();
    }
    named
}

/// What `lib.rs` re-exports and what macros any file exports, each with the module it comes from.
pub fn exports(sources: &[Source]) -> Exports {
    let mut found = Exports::new();
    for source in sources {
        let home = module_path(&source.path);
        for at in 0..source.tokens.len() {
            let defines = source.is_word(at, "macro_rules") && source.is_word(at + 1, "!");
            if let (true, Some(owner), Some(name)) =
                (defines, home.first(), source.tokens.get(at + 2))
            {
                found.insert(name.text.clone(), owner.clone());
            }
        }
        if home.is_empty() {
            for named in named_paths(source) {
                let mut path = named.path.iter().filter(|part| *part != "crate");
                if let (Some(owner), Some(name)) = (path.next(), path.next_back()) {
                    // A derive may have the name of its trait, and it is the trait that counts.
                    if owner != "tombolo_derive" {
                        let name = named.alias.as_ref().unwrap_or(name);
                        found.insert(name.clone(), owner.clone());
                    }
                }
            }
        }
    }
    found
}
