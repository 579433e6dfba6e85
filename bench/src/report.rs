//! Medians, ranges and ratios.

use comfy_table::{CellAlignment, Table, presets};

use crate::cells::{Cell, Role, Unit};

/// `values[entrant][round][row]` of one cell.
pub(crate) type Values = Vec<Vec<Vec<f64>>>;

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
            table.add_row([
                format!("{}{mark}", entrant.name),
                with_unit(median(&all), *unit),
                with_unit(least, *unit),
                with_unit(most, *unit),
                format!("{:.2}", median(&all) / limit),
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
