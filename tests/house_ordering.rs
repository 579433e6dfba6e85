//! Every memory ordering stronger than `Relaxed` names its sync point, and every name has a partner.
//!
//! A remark is `// ORDERING(name): why`. Where the partner is no line of this library the remark says
//! who it is, as in `ORDERING(name, kernel)`: `kernel` and `libc` read or write the word themselves,
//! `itself` is one line that several processes run, and `death` is an order that only counts for
//! whoever looks at what a dead process left.

mod house;

use house::source::{Kind, Source};
use house::table::{quoted, tables};
use house::{expect_caught, expect_clean, tree};
use std::collections::{BTreeMap, BTreeSet};

const ORDERINGS: &[&str] = &["Acquire", "Release", "AcqRel", "SeqCst"];
const PARTNERS: &[&str] = &["kernel", "libc", "itself", "death"];
/// How many lines of code may stand between a remark and the ordering it explains.
const REACH: usize = 7;

/// Where a name stands, and whether the remark says that its partner is elsewhere.
struct Remark {
    file: String,
    line: usize,
    elsewhere: bool,
}

type Remarks = BTreeMap<String, Vec<Remark>>;

/// The names in one comment, each with its partner where that is spelled out.
fn names(comment: &str) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for part in comment.split("ORDERING(").skip(1) {
        let Some((inside, _)) = part.split_once(')') else {
            continue;
        };
        let (name, partner) = match inside.split_once(',') {
            Some((name, partner)) => (name, Some(partner.trim().to_owned())),
            None => (inside, None),
        };
        found.push((name.trim().to_owned(), partner));
    }
    found
}

/// The lines on which an ordering is used: as `Ordering::Release`, or bare as an argument.
fn uses(source: &Source) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < source.tokens.len() {
        let token = &source.tokens[at];
        if token.is("use") {
            at = source.past_item(at);
            continue;
        }
        let ordering = token.kind == Kind::Word && ORDERINGS.contains(&token.text.as_str());
        if ordering && !token.test && at > 0 {
            let qualified = source.is_word(at - 1, "::") && source.is_word(at - 2, "Ordering");
            let opened = ["(", ",", "=", "{", ">"]
                .iter()
                .any(|text| source.is_word(at - 1, text));
            let closed = [")", ",", ";", "}", "else"]
                .iter()
                .any(|text| source.is_word(at + 1, text));
            if qualified || opened && closed {
                found.insert(token.line);
            }
        }
        at += 1;
    }
    found
}

fn check_uses(source: &Source) -> Vec<String> {
    let bare = |line: &usize| {
        let remarks = source.remarks_above(*line, REACH);
        let mut comments = remarks
            .iter()
            .filter_map(|at| source.line(*at).comment.as_ref());
        !comments.any(|comment| comment.contains("ORDERING("))
    };
    let sentence = |line: usize| {
        let file = &source.path;
        format!(
            "{file}:{line}: an ordering stronger than Relaxed without `// ORDERING(name):` above it"
        )
    };
    uses(source)
        .into_iter()
        .filter(bare)
        .map(sentence)
        .collect()
}

fn remarks(sources: &[Source]) -> Remarks {
    let mut found = Remarks::new();
    for source in sources {
        for line in 1..=source.line_count() {
            let comment = source.line(line).comment.as_deref().unwrap_or_default();
            for (name, partner) in names(comment) {
                found.entry(name).or_default().push(Remark {
                    file: source.path.clone(),
                    line,
                    elsewhere: partner.is_some_and(|who| PARTNERS.contains(&who.as_str())),
                });
            }
        }
    }
    found
}

fn check_partners(remarks: &Remarks) -> Vec<String> {
    let alone = |(_, places): &(&String, &Vec<Remark>)| {
        places.len() < 2 && !places.iter().any(|place| place.elsewhere)
    };
    let sentence = |(name, places): (&String, &Vec<Remark>)| {
        let (file, line) = (&places[0].file, places[0].line);
        format!(
            "{file}:{line}: the sync point `{name}` has no partner: no other line repeats its name"
        )
    };
    remarks.iter().filter(alone).map(sentence).collect()
}

/// Compares the names in the code with the first column of the document's tables, and the files named
/// in the second with those where the name stands.
fn check_document(remarks: &Remarks, document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut listed = BTreeSet::new();
    for table in tables(document) {
        let (Some(name), Some(place)) = (table.column("Name"), table.column("Where")) else {
            continue;
        };
        for row in &table.rows {
            let at = format!("docs/ordering.md:{}", row.line);
            let Some(name) = quoted(row.cell(name)).into_iter().next() else {
                found.push(format!("{at}: a row without a name in backticks"));
                continue;
            };
            if !listed.insert(name.clone()) {
                found.push(format!("{at}: `{name}` stands in the table twice"));
            }
            let Some(places) = remarks.get(&name) else {
                found.push(format!("{at}: no line of src/ has the sync point `{name}`"));
                continue;
            };
            let files = quoted(row.cell(place));
            for file in files.iter().filter(|file| file.ends_with(".rs")) {
                if !places
                    .iter()
                    .any(|place| place.file.ends_with(file.as_str()))
                {
                    found.push(format!("{at}: `{name}` does not stand in `{file}`"));
                }
            }
        }
    }
    for (name, places) in remarks {
        if !listed.contains(name) {
            let (file, line) = (&places[0].file, places[0].line);
            found.push(format!(
                "{file}:{line}: the sync point `{name}` is missing in docs/ordering.md"
            ));
        }
    }
    found
}

fn check(sources: &[Source], document: &str) -> Vec<String> {
    let remarks = remarks(sources);
    let mut found: Vec<String> = sources.iter().flat_map(check_uses).collect();
    found.extend(check_partners(&remarks));
    found.extend(check_document(&remarks, document));
    found
}

#[test]
fn every_ordering_is_named_paired_and_listed() {
    let found = check(&tree::sources("src"), &tree::text("docs/ordering.md"));
    expect_clean("orderings", &found);
}

const PAIR: &str = "use std::sync::atomic::Ordering::{Acquire, Release};
fn publish() {
    // ORDERING(tail): Release. The slot is visible to whoever sees this tail.
    tail.store(1, Release);
}
fn refresh() {
    // ORDERING(tail): Acquire. Pairs with the store in `publish`.
    let seen = shared
        .tail
        .load(Acquire);
    head.load(Relaxed);
}
";
const LISTED: &str = "| Name | Where |\n| --- | --- |\n| `tail` | `ring.rs` |\n";

fn plant(text: &str, document: &str) -> Vec<String> {
    check(&[Source::read("src/ring.rs", text)], document)
}

#[test]
fn named_pair_in_the_table_passes() {
    expect_clean("orderings", &plant(PAIR, LISTED));
    let tests = "#[cfg(test)]\nmod tests { fn f() { a.load(SeqCst); } }\n";
    expect_clean("orderings", &plant(&format!("{PAIR}{tests}"), LISTED));
    let above = "// ORDERING(tail): Acquire. As above.\n#[inline]\nfn f() { a.load(Acquire) }\n";
    expect_clean("orderings", &plant(&format!("{PAIR}{above}"), LISTED));
    let kernel = "fn f() {\n// ORDERING(tail, kernel): SeqCst. As above.\nfence(SeqCst); }\n";
    expect_clean("orderings", &plant(kernel, LISTED));
}

#[test]
fn planted_ordering_without_remark_is_caught() {
    for code in [
        "fn f() { a.load(Acquire); }",
        "fn f() { a.store(1, Ordering::Release); }",
        "fn f() { a.swap(1, atomic::Ordering::AcqRel); }",
        "fn f() { fence(SeqCst); }",
        "const ORDER: Ordering = Release;",
        "// Acquire, because of the tail.\nfn f() { a.load(Acquire); }",
        "fn f() { let a = \"ORDERING(tail)\"; a.load(Acquire); }",
    ] {
        let found = plant(&format!("{PAIR}\n{code}"), LISTED);
        expect_caught(
            &found,
            1,
            &["src/ring.rs:1", "without `// ORDERING(name):`"],
        );
    }
}

#[test]
fn planted_remark_of_another_function_does_not_count() {
    let code = "fn f() {\n // ORDERING(tail): Acquire.\n a.load(Acquire);\n}\nfn g() {\n b.load(Acquire);\n}\n";
    let found = plant(&format!("{PAIR}{code}"), LISTED);
    expect_caught(&found, 1, &["src/ring.rs:18", "without"]);
}

#[test]
fn planted_name_without_partner_is_caught() {
    let alone = PAIR.replace("ORDERING(tail): Acquire", "ORDERING(tial): Acquire");
    let listed = format!("{LISTED}| `tial` | `ring.rs` |\n");
    expect_caught(&plant(&alone, &listed), 2, &["has no partner"]);
    let unknown = PAIR.replace(
        "ORDERING(tail): Acquire",
        "ORDERING(tial, weather): Acquire",
    );
    expect_caught(&plant(&unknown, &listed), 2, &["has no partner"]);
}

#[test]
fn planted_name_missing_in_the_document_is_caught() {
    let found = plant(PAIR, "| Name | Where |\n| --- | --- |\n");
    expect_caught(
        &found,
        1,
        &["src/ring.rs:3", "`tail` is missing in docs/ordering.md"],
    );
}

#[test]
fn planted_row_without_code_is_caught() {
    let more = |row: &str| plant(PAIR, &format!("{LISTED}{row}\n"));
    let found = more("| `head` | `ring.rs` |");
    expect_caught(&found, 1, &["docs/ordering.md:4", "sync point `head`"]);
    expect_caught(&more("| `tail` | `ring.rs` |"), 1, &["twice"]);
    expect_caught(&more("| tail | `ring.rs` |"), 1, &["without a name"]);
    let found = plant(PAIR, &LISTED.replace("ring.rs", "wait.rs"));
    expect_caught(&found, 1, &["`tail` does not stand in `wait.rs`"]);
}
