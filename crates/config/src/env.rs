//! `${VAR}` and `${VAR:-default}` in the text of a value.

use crate::problem::{Fault, quoted};

/// The text with its variables filled in; `None` when there is nothing to fill in.
///
/// `${VAR:-default}` takes the default when `VAR` is unset or empty, as a shell does. `$${` stands for
/// a literal `${`. A `$` before anything else is itself.
pub(crate) fn fill(text: &str, vars: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, Fault> {
    if !text.contains("${") {
        return Ok(None);
    }
    let (mut filled, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            filled.push_str(&rest[..at - 1]);
            filled.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        filled.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let Some(end) = inside.find('}') else {
            return Err(Fault::new("`${` without its `}`", "close it, or write `$${` for a literal `${`"));
        };
        filled.push_str(&value(&inside[..end], vars)?);
        rest = &inside[end + 1..];
    }
    filled.push_str(rest);
    Ok(Some(filled))
}

fn value(inside: &str, vars: &dyn Fn(&str) -> Option<String>) -> Result<String, Fault> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let what = format!("{} is no name of a variable", quoted(name));
        return Err(Fault::new(
            what,
            "write `${NAME}` or `${NAME:-default}`; `$${` stands for a literal `${`",
        ));
    }
    match (vars(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            let what = format!("the environment has no variable `{name}`");
            Err(Fault::new(what, format!("set `{name}`, or give a default: `${{{name}:-…}}`")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_escapes() {
        let full = |text| fill(text, &vars).expect("fills");
        assert_eq!(full("plain $ text"), None);
        assert_eq!(full("x-${A}-${A}").as_deref(), Some("x-one-one"));
        assert_eq!(full("${NONE:-two}").as_deref(), Some("two"));
        assert_eq!(full("${EMPTY:-two}").as_deref(), Some("two"));
        assert_eq!(full("${EMPTY}").as_deref(), Some(""));
        assert_eq!(full("$${A}").as_deref(), Some("${A}"));
    }

    #[test]
    fn what_cannot_be_filled_is_named() {
        assert!(fill("${NONE}", &vars).expect_err("unset").what.contains("NONE"));
        assert!(fill("${A", &vars).expect_err("open").what.contains("without"));
        assert!(fill("${A B}", &vars).expect_err("name").what.contains("A B"));
    }
}
