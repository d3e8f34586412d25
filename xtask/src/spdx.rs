//! Licence expressions: `MIT OR (Apache-2.0 AND Unicode-3.0)`, with the older `/` for OR.

/// Licences under which a dependency may be used: permissive ones, that ask for no source of ours.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Whether the expression can be met by allowed licences alone.
///
/// # Errors
/// What is wrong with an expression that cannot be read.
pub(crate) fn allowed(expression: &str) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = Words { words: spaced.split_whitespace().collect(), at: 0 };
    let met = words.either()?;
    match words.next() {
        None => Ok(met),
        Some(word) => Err(format!("`{word}` after the end of the expression")),
    }
}

/// Reads by descent; AND binds tighter than OR.
struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    fn either(&mut self) -> Result<bool, String> {
        let mut met = self.both()?;
        while self.take("OR") {
            // Both sides are read whatever the first says: the rest of the words must be consumed.
            let other = self.both()?;
            met |= other;
        }
        Ok(met)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut met = self.one()?;
        while self.take("AND") {
            let other = self.one()?;
            met &= other;
        }
        Ok(met)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let met = self.either()?;
            return if self.take(")") { Ok(met) } else { Err("a `(` that is not closed".to_owned()) };
        }
        let name = match self.next() {
            Some(word) if !["OR", "AND", "WITH", ")"].contains(&word) => word,
            Some(word) => return Err(format!("`{word}` where a licence should stand")),
            None => return Err("a licence is missing at the end".to_owned()),
        };
        if self.take("WITH") {
            let exception = self.next().ok_or("an exception is missing after WITH")?;
            let full = format!("{name} WITH {exception}");
            return Ok(ALLOWED.contains(&full.as_str()));
        }
        Ok(ALLOWED.contains(&name))
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += usize::from(word.is_some());
        word
    }

    fn take(&mut self, word: &str) -> bool {
        let here = self.words.get(self.at) == Some(&word);
        self.at += usize::from(here);
        here
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_permissive_licences_meet() {
        for expression in [
            "MIT",
            "MIT OR GPL-3.0-only",
            "GPL-3.0-only/MIT",
            "Apache-2.0 / MIT",
            "(MIT OR GPL-3.0-only) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR MIT",
            "GPL-2.0-only AND GPL-3.0-only OR MIT",
        ] {
            assert_eq!(allowed(expression), Ok(true), "{expression}");
        }
    }

    #[test]
    fn expressions_that_they_do_not_meet() {
        for expression in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "(MIT OR Apache-2.0) AND LGPL-2.1-or-later",
            "MIT WITH Classpath-exception-2.0",
            "mit",
        ] {
            assert_eq!(allowed(expression), Ok(false), "{expression}");
        }
    }

    #[test]
    fn expressions_that_cannot_be_read_are_errors() {
        for expression in ["", "MIT OR", "(MIT", "MIT MIT", "AND MIT", "MIT WITH", "MIT )"] {
            assert!(allowed(expression).is_err(), "{expression}");
        }
    }
}
