//! Access logs in the common and the combined form, with a duration after them.
//!
//! `host ident user [time] "request" status bytes ["referer" "agent"] … duration`: the last word, bare, in quotes or
//! behind `=`. With a point it is seconds and the time is the end (nginx: `$request_time`); whole it is microseconds
//! and the time is the beginning (Apache httpd: `%D`). `12ms` says its unit itself and the time is the end.

use super::{Record, Wrong, request, short, status, time};

/// Words that every such line has: host, ident, user, time, request, status, bytes.
const WORDS: usize = 7;

pub(super) fn record(line: &str) -> Result<Record, Wrong> {
    let words = words(line)?;
    if words.len() < WORDS {
        let mend = "a line is `host - user [time] \"request\" status bytes … duration`";
        let what = format!("{} words where an access log has {WORDS} or more", words.len());
        return Err(Wrong::new(line.chars().count() + 1, what, mend));
    }
    let (column, text) = words[3];
    let Some((time_us, is_whole)) = time::moment(text) else {
        let mend = "write it like [10/Oct/2026:13:55:36 +0200]";
        return Err(Wrong::new(column, format!("`{}` is no time", short(text)), mend));
    };
    let who = request(words[4].1, words[4].0)?;
    let status = status(words[5].1, words[5].0)?;
    let duration = words.get(WORDS..).and_then(<[_]>::last).and_then(|(_, word)| duration(word));
    let (duration_us, is_end) = duration.map_or((None, false), |(us, is_end)| (Some(us), is_end));
    Ok(Record { time_us, is_end, is_whole, who, duration_us, status, cost: None })
}

/// Microseconds, and whether the line was stamped at its end. A referer or an agent is none.
fn duration(word: &str) -> Option<(f64, bool)> {
    let word = word.rsplit('=').next().unwrap_or(word).trim_matches('"');
    if word.is_empty() || !word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    match word.parse::<f64>() {
        Ok(seconds) if word.contains('.') => Some((seconds * 1e6, true)),
        Ok(us) => Some((us, false)),
        Err(_) => crate::words::duration_us(word).map(|us| (us, true)),
    }
}

/// Words with their columns; quotes and brackets hold words together, `\"` is no end.
fn words(line: &str) -> Result<Vec<(usize, &str)>, Wrong> {
    let mut words = Vec::new();
    let mut chars = line.char_indices().enumerate().peekable();
    while let Some(&(count, (at, first))) = chars.peek() {
        chars.next();
        if first == ' ' || first == '\t' {
            continue;
        }
        let end = match first {
            '"' => Some('"'),
            '[' => Some(']'),
            _ => None,
        };
        let begin = if end.is_some() { at + 1 } else { at };
        let mut stop = line.len();
        let mut escaped = false;
        let mut closed = end.is_none();
        for (_, (at, next)) in chars.by_ref() {
            let is_end = match end {
                Some(end) => next == end && !escaped,
                None => next == ' ' || next == '\t',
            };
            escaped = next == '\\' && !escaped;
            if is_end {
                stop = at;
                closed = true;
                break;
            }
        }
        if !closed {
            let what = format!("`{first}` is never closed");
            return Err(Wrong::new(count + 1, what, "complete the line, or remove it"));
        }
        words.push((count + 1, &line[begin..stop]));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::super::Who;
    use super::*;

    const COMMON: &str = r#"10.0.0.1 - - [10/Oct/2025:13:55:36 +0000] "GET /quotes/7?x=1 HTTP/1.1" 200 512"#;

    #[test]
    fn common_combined_and_their_durations() {
        let plain = record(COMMON).expect("good");
        assert_eq!(plain.who, Who::Request("GET".to_owned(), "/quotes/7?x=1".to_owned()));
        assert_eq!((plain.duration_us, plain.status, plain.is_end), (None, Some(200), false));
        let nginx = record(&format!(r#"{COMMON} "-" "curl/8 \"x\" 1" 0.125"#)).expect("good");
        assert_eq!((nginx.duration_us, nginx.is_end), (Some(125_000.0), true));
        let apache = record(&format!("{COMMON} 125000")).expect("good");
        assert_eq!((apache.duration_us, apache.is_end), (Some(125_000.0), false));
        let named = record(&format!(r#"{COMMON} "-" "-" rt=0.002"#)).expect("good");
        assert_eq!(named.duration_us, Some(2_000.0));
        let combined = record(&format!(r#"{COMMON} "-" "curl/8""#)).expect("good");
        assert_eq!(combined.duration_us, None);
    }

    #[test]
    fn what_is_wrong_has_its_column() {
        let wrong = |line: &str| record(line).expect_err(line).column;
        assert_eq!(wrong(r#"h - - [yesterday] "GET / HTTP/1.1" 200 1"#), 7);
        assert_eq!(wrong(r#"h - - [10/Oct/2025:13:55:36 +0000] "\x16\x03" 400 1"#), 36);
        assert_eq!(wrong(r#"h - - [10/Oct/2025:13:55:36 +0000] "GET / HTTP/1.1" OK 1"#), 53);
        assert_eq!(wrong(r#"h - - [10/Oct/2025:13:55:36 +0000] "GET /"#), 36);
        assert_eq!(wrong(r#"h [1] "x""#), 10);
    }
}
