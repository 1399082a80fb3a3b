//! Laying values over the defaults, whichever way they were given, and telling what is wrong with them by path.

use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError};

/// Reads a file. What is wrong with it is told by its line, which is not shown: it may hold a secret.
pub(super) fn read_file(path: &Path) -> Result<Table, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("--config {shown}: {error}"))?;
    text.parse::<Table>().map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        format!("--config {shown}: line {line}: {}", error.message())
    })
}

/// Puts a file's values over the defaults; names the settings that do not exist or have another type.
pub(super) fn merge_file(
    target: &mut Table,
    defaults: &Table,
    table: Table,
    prefix: &str,
    problems: &mut Vec<String>,
) {
    for (key, value) in table {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match (defaults.get(&key), value) {
            (None, _) => problems.push(format!("{path}: unknown setting")),
            (Some(Value::Table(inner_defaults)), Value::Table(inner)) => {
                if let Some(Value::Table(inner_target)) = target.get_mut(&key) {
                    merge_file(inner_target, inner_defaults, inner, &path, problems);
                }
            }
            (Some(default), value) if default.same_type(&value) => {
                target.insert(key, value);
            }
            (Some(default), value) => problems.push(format!(
                "{path}: must be {}, not {}",
                type_name(default),
                type_name(&value)
            )),
        }
    }
}

/// Sets one value given as text (environment, flag), read as the type of its default.
pub(super) fn set_text(
    target: &mut Table,
    defaults: &Table,
    path: &str,
    text: &str,
    origin: &str,
    problems: &mut Vec<String>,
) {
    let (sections, key) = match path.rsplit_once('.') {
        Some((sections, key)) => (sections.split('.').collect(), key),
        None => (Vec::new(), path),
    };
    let (mut default_table, mut target_table) = (Some(defaults), Some(target));
    for section in sections {
        default_table = default_table
            .and_then(|table| table.get(section))
            .and_then(Value::as_table);
        target_table = target_table
            .and_then(|table| table.get_mut(section))
            .and_then(Value::as_table_mut);
    }
    let (Some(default), Some(target_table)) = (default_table.and_then(|table| table.get(key)), target_table)
    else {
        problems.push(format!("{origin}: unknown setting"));
        return;
    };
    let value = match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Value::Float(_) => text.trim().parse().ok().map(Value::Float),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        Value::Array(_) => Some(Value::Array(read_list(text))),
        Value::Table(_) | Value::Datetime(_) => None,
    };
    match value {
        Some(value) => {
            target_table.insert(key.to_owned(), value);
        }
        None => problems.push(format!("{origin}: must be {}, not {text:?}", type_name(default))),
    }
}

/// A list as files have it, `["a", "b"]`, or with commas alone, `a,b`.
fn read_list(text: &str) -> Vec<Value> {
    let written = format!("list = {}", text.trim()).parse::<Table>();
    if let Ok(mut table) = written
        && table.len() == 1
        && let Some(Value::Array(list)) = table.remove("list")
    {
        return list;
    }
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| Value::String(item.to_owned()))
        .collect()
}

/// A value that its setting cannot hold.
pub(super) struct Unreadable {
    pub path: String,
    why: String,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.path, self.why)
    }
}

/// Reads each setting by itself, so that one bad value does not hide another. In the place of a bad one stands the
/// default, so that the rest can be judged too.
pub(super) fn parse_sections(
    merged: &Table,
    defaults: &Table,
) -> Result<(Config, Vec<Unreadable>), ConfigError> {
    let mut values = Vec::new();
    list_values(merged, "", &mut values);
    let mut unreadable = Vec::new();
    let mut readable = defaults.clone();
    for (path, value) in values {
        let mut probe = readable.clone();
        let Some(place) = find_place(&mut probe, &path).filter(|place| *place != value) else {
            continue;
        };
        *place = value.clone();
        match probe.clone().try_into::<Config>() {
            Ok(_) => readable = probe,
            Err(error) => unreadable.push(Unreadable {
                path,
                why: error.message().to_owned(),
            }),
        }
    }
    let config = readable
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError(vec![error.message().to_owned()]))?;
    Ok((config, unreadable))
}

/// Adds each value of `table` with its path; a section is no value.
fn list_values<'a>(table: &'a Table, prefix: &str, values: &mut Vec<(String, &'a Value)>) {
    for (key, value) in table {
        match value {
            Value::Table(section) => list_values(section, &format!("{prefix}{key}."), values),
            value => values.push((format!("{prefix}{key}"), value)),
        }
    }
}

fn find_place<'a>(table: &'a mut Table, path: &str) -> Option<&'a mut Value> {
    match path.split_once('.') {
        Some((section, rest)) => find_place(table.get_mut(section)?.as_table_mut()?, rest),
        None => table.get_mut(path),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
        Value::Datetime(_) => "a date",
    }
}
