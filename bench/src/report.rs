//! Medians, ranges and ratios.

use comfy_table::{CellAlignment, Table, presets};

use crate::cells::{Cell, Role, Unit};

/// `values[entrant][round][row]` of one cell.
pub(crate) type Values = Vec<Vec<Vec<f64>>>;

/// What tombolo is to reach, as a ratio to the limit: at least that where more is better, else at most. By the name of the
/// cell and the number of the row. `1m-trip` is 1.5 times ahead of a ring of buffers, which is the limit there.
const GOALS: &[(&str, usize, f64)] = &[
    ("round-trip", 0, 1.10),
    ("round-trip", 1, 1.6),
    ("blocking-trip", 0, 1.1),
    ("asleep-trip", 0, 1.1),
    ("blocking-stream", 0, 0.6),
    ("single", 0, 0.8),
    ("batch", 0, 0.85),
    ("mpsc-at-once", 0, 3.0),
    ("mpsc-in-turn", 0, 3.0),
    ("mpmc-1x1", 0, 0.9),
    ("mpmc-2x1", 0, 0.9),
    ("mpmc-2x2", 0, 0.9),
    ("messages", 0, 1.5),
    ("message-trips", 0, 0.33),
    ("message-trips-asleep", 0, 1.2),
    ("create", 0, 3.0),
    ("attach", 0, 3.0),
    ("locks-mutex", 0, 1.1),
    ("locks-mutex-contended", 0, 1.0),
    ("locks-rwlock-read", 0, 1.2),
    ("locks-rwlock-write", 0, 1.2),
    ("locks-rwlock-readers", 0, 1.0 / 1.2),
    ("locks-rwlock-contended", 0, 1.0 / 1.2),
    ("locks-condvar-notify", 0, 1.2),
    ("locks-condvar-trip", 0, 1.2),
    ("locks-barrier", 0, 1.2),
    ("locks-event-set", 0, 1.2),
    ("locks-event", 0, 1.2),
    ("locks-once", 0, 1.2),
    ("locks-permits", 0, 1.2),
    ("locks-permits-contended", 0, 1.0 / 1.2),
    ("locks-permits-one", 0, 1.0 / 1.2),
    ("64", 0, 0.8),
    ("1k", 0, 0.8),
    ("64k", 0, 0.95),
    ("64k-untouched", 0, 0.6),
    ("1m-trip", 0, 1.0 / 1.5),
    ("stream-64", 0, 4.0),
    ("stream-4k", 0, 3.0),
    ("stream-64k", 0, 1.5),
    ("stream-trip", 0, 0.1),
];

/// The goal of a row, and whether `ratio` reaches it.
fn goal(cell: &str, row: usize, unit: Unit, ratio: f64) -> Option<String> {
    let (_, _, goal) = GOALS
        .iter()
        .find(|(name, number, _)| *name == cell && *number == row)?;
    let (sign, reached) = match unit {
        Unit::PerSecond => (">=", ratio >= *goal),
        Unit::Nanoseconds => ("<=", ratio <= *goal),
    };
    let verdict = if reached { "reached" } else { "missed" };
    Some(format!("{sign} {goal:.2} {verdict}"))
}

/// Prints the rows of `cell`.
pub(crate) fn print(cell: &Cell, values: &Values) {
    for (row, (title, unit)) in cell.rows.iter().enumerate() {
        let of = |entrant: usize| -> Vec<f64> {
            let mut all: Vec<f64> = values[entrant].iter().map(|round| round[row]).collect();
            all.sort_unstable_by(f64::total_cmp);
            all
        };
        let better = |a: f64, b: f64| match unit {
            Unit::PerSecond => a.max(b),
            Unit::Nanoseconds => a.min(b),
        };
        let limit = (0..cell.entrants.len())
            .filter(|entrant| cell.entrants[*entrant].role == Role::Limit)
            .map(|entrant| median(&of(entrant)))
            .reduce(better)
            .unwrap_or(f64::NAN);

        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header([
            *title,
            "median",
            "min",
            "max",
            "of the limit",
            "goal",
            "worst round",
        ]);
        for (index, entrant) in cell.entrants.iter().enumerate() {
            let all = of(index);
            let (least, most) = (all[0], all[all.len() - 1]);
            let worst = if *unit == Unit::PerSecond {
                least
            } else {
                most
            };
            let mark = match entrant.role {
                Role::Limit => " (limit)",
                Role::Ours => " *",
                Role::Other => "",
            };
            let ratio = median(&all) / limit;
            let goal = (entrant.role == Role::Ours)
                .then(|| goal(cell.name, row, *unit, ratio))
                .flatten();
            table.add_row([
                format!("{}{mark}", entrant.name),
                with_unit(median(&all), *unit),
                with_unit(least, *unit),
                with_unit(most, *unit),
                format!("{ratio:.2}"),
                goal.unwrap_or_default(),
                format!("{:.2}", worst / limit),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}\n");
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

fn with_unit(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nanoseconds if value >= 10_000.0 => format!("{:.1} us", value / 1e3),
        Unit::Nanoseconds if value < 20.0 => format!("{value:.2} ns"),
        Unit::Nanoseconds => format!("{value:.0} ns"),
        Unit::PerSecond if value >= 1e9 => format!("{:.2} G/s", value / 1e9),
        Unit::PerSecond if value >= 1e8 => format!("{:.0} M/s", value / 1e6),
        Unit::PerSecond if value >= 1e6 => format!("{:.1} M/s", value / 1e6),
        Unit::PerSecond => format!("{:.1} k/s", value / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_those_of_rows_that_exist() {
        let cells = crate::cells::all();
        for (name, row, _) in GOALS {
            let cell = cells.iter().find(|cell| cell.name == *name);
            assert!(cell.is_some_and(|c| *row < c.rows.len()), "{name} {row}");
        }
    }

    #[test]
    fn goal_is_at_least_or_at_most_by_unit() {
        let said = |unit, ratio| goal("round-trip", 0, unit, ratio).unwrap();
        assert_eq!(said(Unit::Nanoseconds, 1.0), "<= 1.10 reached");
        assert_eq!(said(Unit::Nanoseconds, 1.2), "<= 1.10 missed");
        assert_eq!(said(Unit::PerSecond, 1.2), ">= 1.10 reached");
        assert!(goal("alone", 0, Unit::Nanoseconds, 1.0).is_none());
    }
}
