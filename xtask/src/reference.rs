//! The configuration's reference page, made from its JSON Schema: one table per object.

use std::fmt::Write as _;

use serde_json::Value;

/// The page for a schema.
pub(crate) fn page(schema: &Value) -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         Made from `sluicegate schema` by `cargo xtask gen`; what a key means is written beside it in\n\
         `crates/config/src/wire.rs`. A `*` marks keys that must be there. Units are whole numbers, or per cent of the\n\
         pool where a share is allowed; durations are written `50ms`, `1s`, `2m`; `${VAR}` and `${VAR:-default}` come from\n\
         the environment.\n",
    );
    table(&mut out, "The file", schema);
    let Some(definitions) = schema["$defs"].as_object() else { return out };
    for (name, definition) in definitions {
        if definition["properties"].is_object() {
            table(&mut out, &format!("`{name}`"), definition);
        }
    }
    for (name, definition) in definitions {
        words(&mut out, name, definition);
    }
    out
}

fn table(out: &mut String, title: &str, object: &Value) {
    let _ = write!(out, "\n## {title}\n");
    if let Some(text) = object["description"].as_str() {
        let _ = write!(out, "{}\n\n", one_line(text));
    }
    out.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    let required: Vec<&str> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, rule) in object["properties"].as_object().into_iter().flatten() {
        let star = if required.contains(&key.as_str()) { "*" } else { "" };
        let default = match &rule["default"] {
            Value::Null => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let meaning = one_line(rule["description"].as_str().unwrap_or_default());
        let _ = writeln!(out, "| `{key}`{star} | {} | {default} | {meaning} |", kind(rule));
    }
}

/// A definition that is one of a few words.
fn words(out: &mut String, name: &str, definition: &Value) {
    let options = definition["oneOf"].as_array().into_iter().flatten();
    let lines: Vec<String> = options
        .filter_map(|option| {
            let word = option["const"].as_str()?;
            Some(format!("- `{word}`: {}\n", one_line(option["description"].as_str().unwrap_or_default())))
        })
        .collect();
    if !lines.is_empty() {
        let _ = write!(out, "\n## `{name}`\n{}", lines.concat());
    }
}

/// What may stand there, in a few words.
fn kind(rule: &Value) -> String {
    if let Some(target) = rule["$ref"].as_str() {
        return format!("`{}`", target.rsplit('/').next().unwrap_or(target));
    }
    let any = rule["anyOf"].as_array().or_else(|| rule["oneOf"].as_array());
    if let Some(options) = any {
        let kinds: Vec<String> = options.iter().filter(|option| option["type"] != "null").map(kind).collect();
        return kinds.join(" or ");
    }
    let pattern = rule["pattern"].as_str().unwrap_or_default();
    if pattern.contains("us|ms|s") {
        return "duration".to_owned();
    }
    if pattern.contains('%') {
        let whole = types(rule).contains(&"integer");
        return if whole { "units or per cent" } else { "per cent" }.to_owned();
    }
    if types(rule).contains(&"array") {
        return format!("list of {}", kind(&rule["items"]));
    }
    let kinds: Vec<&str> = types(rule).into_iter().filter(|kind| *kind != "null").collect();
    kinds.join(" or ")
}

fn types(rule: &Value) -> Vec<&str> {
    match &rule["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_words_and_defaults_stand_in_the_page() {
        let schema = json!({
            "required": ["pool"],
            "properties": {
                "pool": {"type": "string", "description": "Name of\nthe pool."},
                "wait": {"type": ["string", "integer", "null"], "pattern": "^(0|[0-9]+(us|ms|s|m|h))$", "default": "1s"},
                "mode": {"anyOf": [{"$ref": "#/$defs/Mode"}, {"type": "null"}]},
            },
            "$defs": {"Mode": {"oneOf": [{"const": "off", "description": "Decide nothing."}]}},
        });
        let page = page(&schema);
        for line in [
            "| `pool`* | string |  | Name of the pool. |",
            "| `wait` | duration | `1s` |  |",
            "| `mode` | `Mode` |  |  |",
            "- `off`: Decide nothing.",
        ] {
            assert!(page.contains(line), "`{line}` is missing:\n{page}");
        }
    }
}
