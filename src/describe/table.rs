//! Aligned tables for people.

/// Which side a column leans to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table that is small enough to hold.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns, from left to right: `type | >keys | >bytes`. What begins with `>`
    /// is a column of numbers, which leans to the right.
    pub fn new(columns: &str) -> Self {
        let columns = columns.split(" | ");
        let (columns, head) = columns
            .map(|name| match name.strip_prefix('>') {
                Some(name) => (Align::Right, name.to_owned()),
                None => (Align::Left, name.to_owned()),
            })
            .unzip();
        Self {
            columns,
            rows: vec![head],
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(self.columns.iter().zip(&widths))
                .map(|(cell, (align, width))| match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                })
                .collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(">db | type");
        table.row(vec!["0".into(), "string".into()]);
        table.row(vec!["100".into(), "x".into()]);
        assert_eq!(table.to_string(), " db  type\n  0  string\n100  x\n");
    }
}
