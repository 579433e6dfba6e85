//! The bytes of a segment are those that `docs/layout.md` says.
//!
//! The document has a table for each struct that lies in a segment, under a heading with its name in
//! backticks, with the columns `offset`, `size` and `field`. Every byte is covered: a gap is a row
//! whose field is `-`. A heading may state the size of the whole, as in ``### `Header` (128 bytes)``.

mod house;

use house::table::{quoted, tables};
use house::{expect_caught, expect_clean, tree};
use std::collections::BTreeMap;

/// Struct, field, offset in bytes, size in bytes; without a field the size and the alignment of the whole.
type Entry = (&'static str, &'static str, usize, usize);

/// One field, as the document has it.
struct Field {
    line: usize,
    name: String,
    offset: usize,
    size: usize,
}

/// One struct, as the document has it.
struct Struct {
    name: String,
    /// What the heading says of the size of the whole.
    total: Option<usize>,
    fields: Vec<Field>,
}

fn number(cell: &str) -> Option<usize> {
    let plain = cell.trim_matches('`').replace([' ', '_', ','], "");
    match plain.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(digits, 16).ok(),
        None => plain.parse().ok(),
    }
}

/// The number before the word "bytes" in a heading.
fn stated_size(heading: &str) -> Option<usize> {
    let (before, _) = heading.split_once(" bytes")?;
    number(before.rsplit([' ', '(']).next()?)
}

/// Every struct of the document, and the rows that could not be read.
fn parse(document: &str) -> (Vec<Struct>, Vec<String>) {
    let mut structs = Vec::new();
    let mut found = Vec::new();
    for table in tables(document) {
        let columns = ["offset", "size", "field"].map(|title| table.column(title));
        let [Some(offset), Some(size), Some(field)] = columns else {
            continue;
        };
        let Some(name) = quoted(&table.heading).into_iter().next() else {
            let heading = &table.heading;
            found.push(format!(
                "docs/layout.md: the heading `{heading}` names no struct in backticks"
            ));
            continue;
        };
        let mut fields = Vec::new();
        for row in &table.rows {
            match (number(row.cell(offset)), number(row.cell(size))) {
                (Some(offset), Some(size)) => fields.push(Field {
                    line: row.line,
                    name: row.cell(field).trim_matches('`').to_owned(),
                    offset,
                    size,
                }),
                _ => found.push(format!("docs/layout.md:{}: no number of bytes", row.line)),
            }
        }
        let total = stated_size(&table.heading);
        structs.push(Struct {
            name,
            total,
            fields,
        });
    }
    (structs, found)
}

/// Holes and overlaps between the rows of one struct.
fn check_cover(of: &Struct) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = 0;
    for field in &of.fields {
        if field.offset != next {
            let kind = if field.offset > next {
                "a hole"
            } else {
                "an overlap"
            };
            found.push(format!(
                "docs/layout.md:{}: {kind} in `{}`: `{}` is at {}, the row before ends at {next}",
                field.line, of.name, field.name, field.offset
            ));
        }
        next = field.offset + field.size;
    }
    if let Some(total) = of.total.filter(|total| *total != next) {
        found.push(format!(
            "docs/layout.md: the heading of `{}` says {total} bytes, its rows end at {next}",
            of.name
        ));
    }
    found
}

/// Compares a document with the layout of the code, in both directions.
fn check(document: &str, code: &[Entry]) -> Vec<String> {
    let (structs, mut found) = parse(document);
    let (wholes, fields): (Vec<_>, Vec<_>) = code.iter().partition(|entry| entry.1.is_empty());
    let mut open: BTreeMap<(&str, &str), (usize, usize)> = fields
        .iter()
        .map(|&&(of, field, offset, size)| ((of, field), (offset, size)))
        .collect();
    for of in &structs {
        found.extend(check_cover(of));
        let end = of.fields.last().map_or(0, |last| last.offset + last.size);
        let whole = wholes.iter().find(|entry| entry.0 == of.name);
        if let Some(&&(name, _, size, _)) = whole.filter(|entry| entry.2 != end) {
            found.push(format!(
                "docs/layout.md: `{name}` has {size} bytes, its rows end at {end}"
            ));
        }
        for field in of.fields.iter().filter(|field| field.name != "-") {
            let at = format!("docs/layout.md:{}", field.line);
            let name = format!("{}::{}", of.name, field.name);
            match open.remove(&(of.name.as_str(), field.name.as_str())) {
                None => found.push(format!(
                    "{at}: the code has no `{name}`, or the document has it twice"
                )),
                Some(there) if there != (field.offset, field.size) => found.push(format!(
                    "{at}: `{name}` is documented with {} bytes at {}, but has {} at {}",
                    field.size, field.offset, there.1, there.0
                )),
                Some(_) => {}
            }
        }
    }
    for (of, field) in open.keys() {
        found.push(format!("docs/layout.md: `{of}::{field}` is not documented"));
    }
    found
}

const DOCUMENT: &str = "## Header

### `Header` (128 bytes)

| offset | size | field | meaning |
| ---: | ---: | --- | --- |
| 0 | 8 | `magic` | says what this is |
| 0x8 | 4 | `abi` | pairs of a | and b |
| 12 | 116 | - | zero |

### `Line`

| offset | size | field |
| --- | --- | --- |
| 0 | 8 | `life` |
";
const CODE: &[Entry] = &[
    ("Header", "magic", 0, 8),
    ("Header", "abi", 8, 4),
    ("Line", "life", 0, 8),
    ("Line", "", 8, 8),
];

#[test]
fn bytes_are_those_of_the_document() {
    // The document shows x86-64; the mutex of other machines has another size, which the abi word tells.
    if cfg!(target_arch = "x86_64") {
        let found = check(&tree::text("docs/layout.md"), &tombolo::layout_table());
        expect_clean("layout", &found);
    }
}

#[test]
fn document_that_fits_passes() {
    expect_clean("layout", &check(DOCUMENT, CODE));
}

#[test]
fn planted_wrong_number_is_caught() {
    let mut code = CODE.to_vec();
    code[1] = ("Header", "abi", 8, 2);
    let found = check(DOCUMENT, &code);
    expect_caught(
        &found,
        1,
        &[
            "docs/layout.md:8",
            "`Header::abi`",
            "4 bytes at 8",
            "2 at 8",
        ],
    );
    code[1] = ("Header", "abi", 10, 4);
    expect_caught(&check(DOCUMENT, &code), 1, &["but has 4 at 10"]);
}

#[test]
fn planted_field_missing_on_one_side_is_caught() {
    let found = check(DOCUMENT, &CODE[..2]);
    expect_caught(
        &found,
        1,
        &["docs/layout.md:15", "the code has no `Line::life`"],
    );
    let mut code = CODE.to_vec();
    code.push(("Line", "pid", 8, 4));
    expect_caught(
        &check(DOCUMENT, &code),
        1,
        &["`Line::pid` is not documented"],
    );
    let twice = format!("{DOCUMENT}| 8 | 8 | `life` |\n");
    expect_caught(&check(&twice, &CODE[..3]), 1, &["twice"]);
}

#[test]
fn planted_hole_and_overlap_are_caught() {
    let hole = DOCUMENT.replace("| 12 | 116 |", "| 16 | 112 |");
    expect_caught(
        &check(&hole, CODE),
        1,
        &["docs/layout.md:9", "a hole in `Header`"],
    );
    let overlap = DOCUMENT.replace("| 12 | 116 |", "| 8 | 120 |");
    expect_caught(&check(&overlap, CODE), 1, &["an overlap in `Header`"]);
    let short = DOCUMENT.replace("| 12 | 116 |", "| 12 | 100 |");
    expect_caught(&check(&short, CODE), 1, &["says 128 bytes", "end at 112"]);
}

#[test]
fn planted_bytes_beyond_the_rows_are_caught() {
    let mut code = CODE.to_vec();
    code[3] = ("Line", "", 64, 64);
    expect_caught(
        &check(DOCUMENT, &code),
        1,
        &["`Line` has 64 bytes", "end at 8"],
    );
}

#[test]
fn planted_unreadable_row_is_caught() {
    let words = DOCUMENT.replace("| 12 | 116 |", "| twelve | 116 |");
    let found = check(&words, CODE);
    expect_caught(&found[..1], 1, &["docs/layout.md:9", "no number"]);
    let nameless = DOCUMENT.replace("### `Line`", "### Line");
    let found = check(&nameless, &CODE[..2]);
    expect_caught(&found, 1, &["names no struct"]);
}
