//! Answers for people.

use serde_json::Value;

/// A list of objects as a table with these columns, or an object as lines.
pub(super) fn render(value: &Value, columns: &[&str]) -> String {
    match value {
        Value::Array(rows) => render_rows(rows, columns),
        Value::Object(fields) => {
            let width = fields.keys().map(String::len).max().unwrap_or_default();
            fields.iter().map(|(name, value)| format!("{name:width$}  {}\n", cell(value))).collect()
        }
        other => format!("{}\n", cell(other)),
    }
}

fn render_rows(rows: &[Value], columns: &[&str]) -> String {
    let header = columns.iter().map(|name| name.to_uppercase()).collect();
    let body = rows.iter().map(|row| {
        columns.iter().map(|name| row.get(name).map(cell).unwrap_or_default()).collect()
    });
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(body).collect();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(item).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A replica in a list is known by its node; one that does not vote is marked.
fn item(value: &Value) -> String {
    match (value.get("node"), value.get("voter")) {
        (Some(node), Some(Value::Bool(false))) => format!("{node}?"),
        (Some(node), _) => node.to_string(),
        _ => cell(value),
    }
}

#[cfg(test)]
mod tests;
