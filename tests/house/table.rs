//! Tables in Markdown.

/// One table, with the heading it stands under.
#[derive(Debug)]
pub struct Table {
    pub heading: String,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

/// One row; `line` counts from 1.
#[derive(Debug)]
pub struct Row {
    pub line: usize,
    pub cells: Vec<String>,
}

impl Table {
    /// The index of a column, by its title without regard to case.
    pub fn column(&self, title: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|column| column.eq_ignore_ascii_case(title))
    }
}

impl Row {
    /// The cell at `column`, or nothing where the row is too short.
    pub fn cell(&self, column: usize) -> &str {
        self.cells.get(column).map_or("", String::as_str)
    }
}

/// Every table of a document, in order; code blocks are passed over.
pub fn tables(text: &str) -> Vec<Table> {
    let mut found: Vec<Table> = Vec::new();
    let mut heading = String::new();
    let (mut inside, mut fenced) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("```") {
            fenced = !fenced;
        }
        if fenced || !line.starts_with('|') {
            inside = false;
            if !fenced && line.starts_with('#') {
                heading = line.trim_start_matches('#').trim().to_owned();
            }
            continue;
        }
        let cells = cells(line);
        match found.last_mut() {
            Some(table) if inside => {
                let ruler = cells.iter().all(|cell| is_ruler(cell));
                let row = Row {
                    line: index + 1,
                    cells,
                };
                table.rows.extend((!ruler).then_some(row));
            }
            _ => found.push(Table {
                heading: heading.clone(),
                columns: cells,
                rows: Vec::new(),
            }),
        }
        inside = true;
    }
    found
}

fn is_ruler(cell: &str) -> bool {
    cell.contains('-') && cell.chars().all(|c| matches!(c, '-' | ':' | ' '))
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.strip_prefix('|').unwrap_or(line);
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    let mut cells = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in inner.chars() {
        let splits = c == '|' && !quoted && !escaped;
        quoted ^= c == '`';
        escaped = c == '\\';
        match cells.last_mut() {
            Some(last) if !splits => last.push(c),
            _ => cells.push(String::new()),
        }
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

/// The words of a cell that stand between backticks.
pub fn quoted(cell: &str) -> Vec<String> {
    let odd = |(index, part): (usize, &str)| (index % 2 == 1).then(|| part.to_owned());
    cell.split('`').enumerate().filter_map(odd).collect()
}
