//! Every promise of the contract is shown by tests that exist.
//!
//! A row of `docs/contract.md` names its promise (`C1`), the tests that show it, and its state:
//! `shown`, `not shown here: why` for what this kind of machine cannot show although the tests exist,
//! or `not shown yet: what is missing` while a test is still to be written. The tests that `docs/owner-death.md` names
//! exist, too.

mod house;

use house::source::{Kind, Source};
use house::table::{quoted, tables};
use house::{expect_caught, expect_clean, tree};
use std::collections::{BTreeMap, BTreeSet};

/// The number of promises.
const PROMISES: usize = 12;
/// Where tests may stand.
const FOLDERS: &[&str] = &["tests", "src", "kit", "derive", "bench"];

/// One test or case: where it stands.
type Tests = BTreeMap<String, Vec<String>>;

/// Every test of these files: functions with `#[test]`, and cases that a harness knows by a string.
fn tests(sources: &[Source]) -> Tests {
    let mut found = Tests::new();
    for source in sources {
        let mut names = functions(source);
        names.extend(cases(source));
        for name in names {
            found.entry(name).or_default().push(source.path.clone());
        }
    }
    found
}

fn functions(source: &Source) -> BTreeSet<String> {
    let attributed = |at: &usize| {
        let test = ["test", "loom_test"]
            .iter()
            .any(|name| source.is_word(at + 2, name));
        source.is_word(*at, "#") && source.is_word(at + 1, "[") && test
    };
    let name = |at: usize| {
        let item = source.past_attributes(at);
        let word = (item..item + 4).find(|at| source.is_word(*at, "fn"))?;
        Some(source.tokens.get(word + 1)?.text.clone())
    };
    (0..source.tokens.len())
        .filter(attributed)
        .filter_map(name)
        .collect()
}

/// Strings that are whole names, in files that describe cases to a harness.
fn cases(source: &Source) -> BTreeSet<String> {
    if !source.path.starts_with("tests/") && !source.path.starts_with("kit/") {
        return BTreeSet::new();
    }
    let is_name = |text: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        text.contains('_') && text.chars().all(plain)
    };
    let texts = source
        .tokens
        .iter()
        .filter(|token| token.kind == Kind::Text);
    texts
        .map(|token| token.text.clone())
        .filter(|text| is_name(text))
        .collect()
}

/// The number in `C7`, at the start of a cell that may begin with emphasis.
fn promise(cell: &str) -> Option<usize> {
    let digits = cell.trim_start_matches('*').strip_prefix('C')?;
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Whether the name in a cell, `name` or `file::name`, is one of the tests.
fn exists(tests: &Tests, name: &str) -> bool {
    match name.rsplit_once("::") {
        None => tests.contains_key(name),
        Some((file, test)) => tests.get(test).is_some_and(|places| {
            let stem = file.replace("::", "/");
            places.iter().any(|place| {
                let place = place.trim_end_matches(".rs").trim_end_matches("/mod");
                place == stem || place.ends_with(&format!("/{stem}"))
            })
        }),
    }
}

fn check_row(at: &str, names: &[String], state: &str, tests: &Tests) -> Vec<String> {
    let missing: Vec<&String> = names.iter().filter(|name| !exists(tests, name)).collect();
    let mut found = Vec::new();
    if names.is_empty() {
        found.push(format!("{at}: names no test"));
    }
    if let Some(what) = state.strip_prefix("not shown yet:") {
        if what.trim().is_empty() {
            found.push(format!("{at}: does not say what is missing"));
        }
        if missing.is_empty() && !names.is_empty() {
            found.push(format!("{at}: is `not shown yet`, but all its tests exist"));
        }
        return found;
    }
    let reason = state.strip_prefix("not shown here:").map(str::trim);
    if state != "shown" && reason.is_none_or(str::is_empty) {
        found.push(format!(
            "{at}: the state `{state}` is neither `shown` nor `not shown here: why`"
        ));
    }
    let absent = |name: &String| format!("{at}: names the test `{name}`, which does not exist");
    found.extend(missing.into_iter().map(absent));
    found
}

fn check(document: &str, tests: &Tests) -> Vec<String> {
    let mut found = Vec::new();
    let mut rows: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for table in tables(document) {
        let columns = ["Promise", "Shown by", "State"].map(|title| table.column(title));
        let [Some(what), Some(by), Some(state)] = columns else {
            continue;
        };
        for row in &table.rows {
            let at = format!("docs/contract.md:{}", row.line);
            let names = quoted(row.cell(by));
            match promise(row.cell(what)) {
                Some(number @ 1..=PROMISES) => {
                    rows.entry(number)
                        .or_default()
                        .extend(names.iter().cloned());
                }
                _ => found.push(format!(
                    "{at}: begins with no promise from C1 to C{PROMISES}"
                )),
            }
            found.extend(check_row(&at, &names, row.cell(state), tests));
        }
    }
    for number in (1..=PROMISES).filter(|number| !rows.contains_key(number)) {
        found.push(format!("docs/contract.md: C{number} has no row"));
    }
    found.extend(check_names(&rows, tests));
    found
}

/// A test that carries the number of a promise in its name, `c7_...`, stands in a row of that promise.
fn check_names(rows: &BTreeMap<usize, BTreeSet<String>>, tests: &Tests) -> Vec<String> {
    let mut found = Vec::new();
    for (name, places) in tests {
        let Some((number, _)) = name.strip_prefix('c').and_then(|rest| rest.split_once('_')) else {
            continue;
        };
        let Ok(number) = number.parse::<usize>() else {
            continue;
        };
        let named = |listed: &String| listed.rsplit("::").next() == Some(name);
        if !rows
            .get(&number)
            .is_some_and(|names| names.iter().any(named))
        {
            found.push(format!(
                "{}: the test `{name}` is named after C{number}, but no row of C{number} names it",
                places[0]
            ));
        }
    }
    found
}

#[test]
fn every_promise_is_shown_by_tests_that_exist() {
    let document = tree::text("docs/contract.md");
    expect_clean("contract", &check(&document, &tests(&sources())));
}

/// Names in the last column of `docs/owner-death.md`, of tests that do not exist, and rows that name none and do not say
/// so.
fn check_deaths(document: &str, tests: &Tests) -> Vec<String> {
    let mut found = Vec::new();
    for table in tables(document) {
        let Some(by) = table.column("shown by") else {
            continue;
        };
        for row in &table.rows {
            let at = format!("docs/owner-death.md:{}", row.line);
            let names = quoted(row.cell(by));
            if names.is_empty() && !row.cell(by).contains("no test") && row.cell(by) != "–" {
                found.push(format!(
                    "{at}: names no test, and does not say that there is none"
                ));
            }
            let absent = |name: &&String| !exists(tests, name);
            found.extend(
                names
                    .iter()
                    .filter(absent)
                    .map(|name| format!("{at}: names the test `{name}`, which does not exist")),
            );
        }
    }
    found
}

fn sources() -> Vec<Source> {
    FOLDERS
        .iter()
        .flat_map(|folder| tree::sources(folder))
        .filter(|source| !source.path.starts_with("tests/house"))
        .collect()
}

#[test]
fn every_row_of_the_deaths_is_shown_by_tests_that_exist() {
    let document = tree::text("docs/owner-death.md");
    expect_clean("deaths", &check_deaths(&document, &tests(&sources())));
}

#[test]
fn planted_death_without_its_test_is_caught() {
    let tests = planted_tests(TESTS);
    let document = |by: &str| format!("| killed | shown by |\n| --- | --- |\n| sender | {by} |\n");
    for sound in [
        "`holds`",
        "`holds`, `send_to_full`",
        "no test of its own yet",
    ] {
        expect_clean("deaths", &check_deaths(&document(sound), &tests));
    }
    let found = check_deaths(&document("`holds`, `lost`"), &tests);
    expect_caught(&found, 1, &["docs/owner-death.md:3", "`lost`"]);
    let found = check_deaths(&document("to be seen"), &tests);
    expect_caught(&found, 1, &["docs/owner-death.md:3", "names no test"]);
}

fn planted_tests(text: &str) -> Tests {
    tests(&[Source::read("tests/death_mutex.rs", text)])
}

/// A document in which every promise is shown by `holds`, with `last` as the row of the last one.
fn planted_document(last: &str) -> String {
    let mut text = "| Promise | Shown by | State |\n| --- | --- | --- |\n".to_owned();
    for number in 1..PROMISES {
        text.push_str(&format!("| **C{number}** It holds. | `holds` | shown |\n"));
    }
    text + last
}

const TESTS: &str =
    "#[test]\nfn holds() {}\nfn helper() {}\nconst CASES: [&str; 1] = [\"send_to_full\"];\n";

#[test]
fn rows_with_tests_pass() {
    let tests = planted_tests(TESTS);
    for row in [
        "| C12 | `holds`, `send_to_full` | shown |",
        "| C12 | `death_mutex::holds` | not shown here: no second pid namespace |",
        "| C12 | `lost` | not shown yet: the ring for many |",
    ] {
        expect_clean("contract", &check(&planted_document(row), &tests));
    }
}

#[test]
fn planted_row_without_its_test_is_caught() {
    let tests = planted_tests(TESTS);
    for row in [
        "| C12 | `lost` | shown |",
        "| C12 | `holds`, `helper` | shown |",
        "| C12 | `death_ring::holds` | shown |",
        "| C12 | `lost` | not shown here: it rains |",
    ] {
        let found = check(&planted_document(row), &tests);
        expect_caught(&found, 1, &["docs/contract.md:14", "does not exist"]);
    }
    let found = check(&planted_document("| C12 | to be seen | shown |"), &tests);
    expect_caught(&found, 1, &["names no test"]);
}

#[test]
fn planted_promise_without_a_row_is_caught() {
    let tests = planted_tests(TESTS);
    expect_caught(
        &check(&planted_document(""), &tests),
        1,
        &["C12 has no row"],
    );
    let found = check(
        &planted_document("| C12 | `holds` | shown |\n| C13 | `holds` | shown |"),
        &tests,
    );
    expect_caught(
        &found,
        1,
        &["docs/contract.md:15", "begins with no promise"],
    );
}

#[test]
fn planted_state_without_a_reason_is_caught() {
    let tests = planted_tests(TESTS);
    for row in [
        "| C12 | `holds` | |",
        "| C12 | `holds` | probably |",
        "| C12 | `holds` | not shown here: |",
    ] {
        let found = check(&planted_document(row), &tests);
        expect_caught(&found, 1, &["docs/contract.md:14", "neither `shown`"]);
    }
    let found = check(
        &planted_document("| C12 | `lost` | not shown yet: |"),
        &tests,
    );
    expect_caught(&found, 1, &["what is missing"]);
    let found = check(
        &planted_document("| C12 | `holds` | not shown yet: a test |"),
        &tests,
    );
    expect_caught(&found, 1, &["all its tests exist"]);
}

#[test]
fn planted_test_outside_its_row_is_caught() {
    let tests = planted_tests(&format!("{TESTS}#[test]\nfn c3_timeout_bounds_it() {{}}\n"));
    let found = check(&planted_document("| C12 | `holds` | shown |"), &tests);
    expect_caught(&found, 1, &["tests/death_mutex.rs", "no row of C3"]);
}
