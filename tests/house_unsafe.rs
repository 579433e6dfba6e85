//! Rules of the house that a line of code can break by itself.
//!
//! A file that allows `unsafe` says what it fences in, every `unsafe` block says why it is sound,
//! nothing is left unfinished or switched off, no file outgrows its idea, and the project speaks of
//! itself only.

mod house;

use house::source::Source;
use house::{expect_caught, expect_clean, tree};

/// The longest file of `src/`, in lines.
const LONGEST: usize = 600;
/// Where Rust code stands.
const FOLDERS: &[&str] = &[
    "src", "tests", "examples", "derive", "kit", "bench", "cli", "fuzz",
];
/// What the project speaks of and reads, beside Rust.
const PROSE: &[&str] = &["md", "toml", "yml", "yaml", "sh", "stderr", "run"];

/// Words that belong to one workplace, each in two parts so that this list is no finding itself.
const WORKPLACE: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/ho", "me/"),
    ("/ro", "ot/"),
    ("shared", "/DESIGN"),
    ("shared", "/STYLE"),
    ("shared", "/PROTOCOLS"),
    ("../sha", "red"),
    ("DESI", "GN.md"),
    ("DESI", "GN 4"),
    ("PROTO", "COLS.md"),
    ("STY", "LE.md"),
    ("back", "ground/robustness"),
    ("back", "ground/performance"),
    ("robust", "ness.md"),
    ("perform", "ance.md"),
    ("COM", "MON.md"),
    ("iss", "ue #"),
    ("the iss", "ue says"),
    ("this iss", "ue asks"),
    ("the bri", "ef"),
    ("work", "tree"),
    ("co-auth", "ored-by"),
    ("language mo", "del"),
];

/// Lines on which `rule` finds something, as sentences.
fn lines(source: &Source, text: &str, rule: impl Fn(usize) -> Option<usize>) -> Vec<String> {
    let mut found: Vec<usize> = (0..source.tokens.len()).filter_map(rule).collect();
    found.dedup();
    let sentence = |line: usize| format!("{}:{line}: {text}", source.path);
    found.into_iter().map(sentence).collect()
}

/// Files that allow `unsafe`, and lines that do so for less than a file.
fn check_fences(source: &Source) -> Vec<String> {
    let allows = |at: usize| {
        source.is_word(at, "unsafe_code")
            && at > 1
            && ["allow", "expect"]
                .iter()
                .any(|word| source.is_word(at - 2, word))
    };
    let inner = |at: usize| at > 4 && source.is_word(at - 4, "!") && source.is_word(at - 5, "#");
    let first_code = (0..source.tokens.len()).find(|&at| {
        let attribute = source.is_word(at, "#") && source.is_word(at + 1, "!");
        source.tokens[at].line > 0 && !attribute && !inside_inner_attribute(source, at)
    });
    let late = |at: usize| first_code.is_some_and(|first| at > first);
    let silent = |at: usize| {
        let line = source.tokens[at].line;
        let above = source.remark_of_statement(line).to_lowercase();
        !["fence", "vouch", "this file"]
            .iter()
            .any(|word| above.contains(word))
    };
    let line = |at: usize| source.tokens[at].line;
    let of_library = source.path.starts_with("src/");
    let mut found = lines(
        source,
        "allows `unsafe` for one item; a file does it as a whole, in its first lines",
        |at| (of_library && allows(at) && (!inner(at) || late(at))).then(|| line(at)),
    );
    found.extend(lines(
        source,
        "allows `unsafe` without a sentence above it that says what the file fences in",
        |at| (allows(at) && inner(at) && silent(at)).then(|| line(at)),
    ));
    found
}

fn inside_inner_attribute(source: &Source, at: usize) -> bool {
    let starts = |from: &usize| source.is_word(*from, "#") && source.is_word(from + 1, "!");
    let start = (0..at).rev().find(starts);
    start.is_some_and(|start| at < source.past_bracket(start + 2))
}

fn check_reasons(source: &Source) -> Vec<String> {
    lines(source, "`unsafe` without `// SAFETY:` above it", |at| {
        let opens = ["{", "impl"]
            .iter()
            .any(|next| source.is_word(at + 1, next));
        let line = source.tokens[at].line;
        let silent = !source.remark_of_statement(line).contains("SAFETY:");
        (source.is_word(at, "unsafe") && opens && silent).then_some(line)
    })
}

fn check_unfinished(source: &Source) -> Vec<String> {
    let mut found = lines(
        source,
        "is unfinished, or a tool for looking for errors",
        |at| {
            let macros = ["todo", "unimplemented", "dbg"];
            let named = macros.iter().any(|name| source.is_word(at, name));
            (named && source.is_word(at + 1, "!")).then(|| source.tokens[at].line)
        },
    );
    found.extend(lines(source, "a test is switched off", |at| {
        let ignores = source.is_word(at, "ignore") && at > 1 && source.is_word(at - 1, "[");
        (ignores && source.is_word(at - 2, "#")).then(|| source.tokens[at].line)
    }));
    for line in 1..=source.line_count() {
        let comment = source.line(line).comment.as_deref().unwrap_or_default();
        if ["TODO", "FIXME", "XXX"]
            .iter()
            .any(|word| comment.contains(word))
        {
            found.push(format!(
                "{}:{line}: is unfinished, as its remark says",
                source.path
            ));
        }
    }
    found
}

/// `unwrap` where no test runs: an error, or `expect` with the invariant, says more.
fn check_unwrap(source: &Source) -> Vec<String> {
    let production = [
        "src/",
        "derive/src/",
        "kit/src/",
        "bench/src/",
        "cli/src/",
        "examples/",
    ];
    if !production
        .iter()
        .any(|folder| source.path.starts_with(folder))
    {
        return Vec::new();
    }
    lines(source, "`unwrap` outside tests", |at| {
        let called = at > 0 && source.is_word(at - 1, ".") && source.is_word(at + 1, "(");
        let token = &source.tokens[at];
        (token.is("unwrap") && called && !token.test).then_some(token.line)
    })
}

fn check_length(source: &Source) -> Vec<String> {
    let long = source.path.starts_with("src/") && source.line_count() > LONGEST;
    let sentence = || {
        let (path, lines) = (&source.path, source.line_count());
        format!("{path}:{lines}: more than {LONGEST} lines: look for the second idea in it")
    };
    long.then(sentence).into_iter().collect()
}

/// Lines that speak of a workplace instead of the project.
fn check_speech(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        for (left, right) in WORKPLACE {
            let word = format!("{left}{right}");
            let exact = word.chars().any(char::is_uppercase);
            // The compiler's messages speak of its own reports.
            let of_compiler = path.ends_with(".stderr") && lower.contains("help: see ");
            let found_here = exact && line.contains(&word) || !exact && lower.contains(&word);
            if found_here && !of_compiler {
                let at = index + 1;
                found.push(format!(
                    "{path}:{at}: speaks of `{word}`, which is no part of the project"
                ));
            }
        }
    }
    found
}

fn check(source: &Source) -> Vec<String> {
    let rules = [
        check_fences,
        check_reasons,
        check_unfinished,
        check_unwrap,
        check_length,
    ];
    rules.iter().flat_map(|rule| rule(source)).collect()
}

#[test]
fn code_keeps_the_rules_of_the_house() {
    let sources = FOLDERS.iter().flat_map(|folder| tree::sources(folder));
    let found: Vec<String> = sources.flat_map(|source| check(&source)).collect();
    expect_clean("house", &found);
}

#[test]
fn project_speaks_of_itself_only() {
    let spoken = |path: &str| {
        let ending = path.rsplit(['.', '/']).next().unwrap_or_default();
        ending == "rs" || PROSE.contains(&ending)
    };
    let found: Vec<String> = tree::files(".", spoken)
        .iter()
        .flat_map(|path| check_speech(path, &tree::text(path)))
        .collect();
    expect_clean("house", &found);
}

fn plant(path: &str, text: &str) -> Vec<String> {
    let read = tree::mark_test_files(vec![Source::read(path, text)]);
    read.iter().flat_map(check).collect()
}

#[test]
fn careful_code_passes() {
    let text = "//! Slots.\n//!\n//! Fences in the pointers to the slots.\n#![allow(unsafe_code)]\n\
        use std::ptr;\n\
        fn f() {\n // SAFETY: the index is masked.\n let a =\n unsafe { b() };\n\
        // SAFETY:\n // - the word is ours.\n // - nobody writes.\n unsafe { c() } }\n\
        // SAFETY: plain bytes.\nunsafe impl Send for A {}\n\
        const WORDS: &str = \"todo!() unsafe { .unwrap() }\"; // dbg\n\
        #[cfg(test)]\nmod tests { #[test] fn f() { a.unwrap(); } }\n";
    expect_clean("house", &plant("src/a.rs", text));
    expect_clean("house", &plant("tests/a.rs", "fn f() { a.unwrap(); }"));
    let after =
        "// This file reads values as bytes.\n#![allow(unsafe_code)]\n#![deny(warnings)]\nmod a;";
    expect_clean("house", &plant("src/a.rs", after));
}

#[test]
fn planted_silent_fence_is_caught() {
    for text in [
        "#![allow(unsafe_code)]\n",
        "//! Slots of a ring.\n#![allow(unsafe_code)]\n",
        "// Fences in the slots.\n\n#![allow(unsafe_code)]\n",
    ] {
        expect_caught(
            &plant("src/a.rs", text),
            1,
            &["src/a.rs:", "what the file fences in"],
        );
    }
    let found = plant(
        "src/a.rs",
        "// Fences in f.\n#[allow(unsafe_code)]\nfn f() {}\n",
    );
    expect_caught(&found, 1, &["src/a.rs:2", "as a whole"]);
    let found = plant(
        "src/a.rs",
        "mod b {\n // Fences in f.\n#![allow(unsafe_code)]\n}\n",
    );
    expect_caught(&found, 1, &["src/a.rs:3", "in its first lines"]);
}

#[test]
fn planted_unsafe_without_reason_is_caught() {
    for text in [
        "\nfn f() { unsafe { g() } }",
        "// It is fine.\nunsafe impl Send for A {}",
        "// SAFETY: elsewhere.\n\nunsafe impl Send for A {}",
        "fn f() { /* SAFETY: of h. */ h();\n unsafe { g() } }",
    ] {
        expect_caught(
            &plant("src/a.rs", text),
            1,
            &["src/a.rs:", "without `// SAFETY:`"],
        );
    }
}

#[test]
fn planted_unfinished_code_is_caught() {
    for text in [
        "fn f() { todo!() }",
        "fn f() { unimplemented!() }",
        "fn f() { dbg!(1); }",
    ] {
        expect_caught(
            &plant("tests/a.rs", text),
            1,
            &["tests/a.rs:1", "is unfinished"],
        );
    }
    let remark = format!("// {}: the rest.\nfn f() {{}}", "TODO");
    expect_caught(&plant("src/a.rs", &remark), 1, &["as its remark says"]);
    for text in [
        "#[test]\n#[ignore]\nfn f() {}",
        "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
    ] {
        expect_caught(
            &plant("tests/a.rs", text),
            1,
            &["tests/a.rs:2", "switched off"],
        );
    }
}

#[test]
fn planted_unwrap_is_caught() {
    for path in ["src/a.rs", "examples/a.rs", "kit/src/lib.rs"] {
        let found = plant(path, "fn f() {\n a\n .unwrap(); }");
        expect_caught(&found, 1, &[path, ":3:", "`unwrap` outside tests"]);
    }
}

#[test]
fn planted_long_file_is_caught() {
    let found = plant("src/a.rs", &"// A line.\n".repeat(LONGEST + 1));
    expect_caught(&found, 1, &["src/a.rs:601", "second idea"]);
    expect_clean("house", &plant("src/a.rs", &"// A line.\n".repeat(LONGEST)));
}

#[test]
fn planted_word_of_the_workplace_is_caught() {
    for (left, right) in WORKPLACE {
        let text = format!("A line.\nSee {left}{right} for more.\n");
        let found = check_speech("docs/a.md", &text);
        assert!(!found.is_empty(), "`{left}{right}` was not found");
        expect_caught(
            &found,
            found.len(),
            &["docs/a.md:2", "no part of the project"],
        );
    }
    let url = "See https://github.com/rust-lang/rust/issues/1 and the segment shared by both.";
    expect_clean("house", &check_speech("docs/a.md", url));
}
