//! Moments as logs write them.

/// Microseconds since 1970, and whether the text had no fraction of a second.
pub(super) type Moment = (f64, bool);

/// A number (seconds; milliseconds or microseconds if it is too large for seconds of this age of the world), or
/// RFC 3339, or the common log's `10/Oct/2026:13:55:36 +0200`. A time without a zone is UTC.
pub(super) fn moment(text: &str) -> Option<Moment> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        if !number.is_finite() || number < 0.0 {
            return None;
        }
        let unit = match number {
            n if n >= 1e17 => 1e-3,
            n if n >= 1e14 => 1.0,
            n if n >= 1e11 => 1e3,
            _ => 1e6,
        };
        return Some((number * unit, unit == 1e6 && !text.contains('.')));
    }
    common(text).or_else(|| rfc_3339(text))
}

/// `2026-10-10T13:55:36.123+02:00`, with `T` or a space.
fn rfc_3339(text: &str) -> Option<Moment> {
    if !text.is_ascii() || text.len() < 19 {
        return None;
    }
    let (date, rest) = text.split_at(10);
    let mut parts = date.split('-');
    let (year, month, day) = (digits(parts.next()?)?, digits(parts.next()?)?, digits(parts.next()?)?);
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone_at);
    let (seconds, fraction) = clock_s(clock.trim())?;
    let zone_s = match zone {
        "" | "Z" | "z" => 0,
        zone => offset_s(zone)?,
    };
    let us = joined(days(year, month, day)?, seconds - zone_s, fraction.unwrap_or(0.0));
    Some((us, fraction.is_none()))
}

/// `10/Oct/2026:13:55:36 +0200`, with or without brackets.
fn common(text: &str) -> Option<Moment> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = text.trim_start_matches('[').trim_end_matches(']');
    let (date, rest) = text.split_once(':')?;
    let mut parts = date.split('/');
    let day = digits(parts.next()?)?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as i64 + 1;
    let year = digits(parts.next()?)?;
    let (clock, zone) = rest.split_once(' ').unwrap_or((rest, "+0000"));
    let (seconds, fraction) = clock_s(clock)?;
    let us = joined(days(year, month, day)?, seconds - offset_s(zone)?, fraction.unwrap_or(0.0));
    Some((us, fraction.is_none()))
}

fn joined(days: i64, seconds: i64, fraction: f64) -> f64 {
    (days * 86_400 + seconds) as f64 * 1e6 + (fraction * 1e6).round()
}

/// `13:55:36.5` as whole seconds and a fraction.
fn clock_s(text: &str) -> Option<(i64, Option<f64>)> {
    let mut parts = text.splitn(3, ':');
    let (hours, minutes, rest) = (digits(parts.next()?)?, digits(parts.next()?)?, parts.next()?);
    let (seconds, fraction) = match rest.split_once(['.', ',']) {
        Some((seconds, fraction)) => {
            let plain = !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
            (seconds, Some(plain.then(|| format!("0.{fraction}").parse().ok()).flatten()?))
        }
        None => (rest, None),
    };
    let seconds = digits(seconds)?;
    (hours < 24 && minutes < 60 && seconds <= 60).then_some((hours * 3600 + minutes * 60 + seconds, fraction))
}

/// `+0200` or `+02:00`.
fn offset_s(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let number = text.strip_prefix(['+', '-'])?.replace(':', "");
    if number.len() != 4 {
        return None;
    }
    let number = digits(&number)?;
    (number / 100 < 24 && number % 100 < 60).then_some(sign * (number / 100 * 3600 + number % 100 * 60))
}

fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Days since 1970-01-01 in the Gregorian calendar, counted in eras of 400 years that begin in March.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_name_the_same_moment() {
        let us = 1_760_104_536e6;
        for (text, whole) in [
            ("1760104536", true),
            ("1760104536000", false),
            ("1760104536000000", false),
            ("2025-10-10T13:55:36Z", true),
            ("2025-10-10T15:55:36.000+02:00", false),
            ("2025-10-10 13:55:36", true),
            ("10/Oct/2025:15:55:36 +0200", true),
            ("[10/Oct/2025:06:25:36 -0730]", true),
        ] {
            assert_eq!(moment(text), Some((us, whole)), "{text}");
        }
        assert_eq!(moment("1760104536.5"), Some((us + 5e5, false)));
        assert_eq!(moment("2000-03-01T00:00:00Z"), Some((951_868_800e6, true)));
        assert_eq!(moment("0.25"), Some((250_000.0, false)));
    }

    #[test]
    fn what_is_no_moment() {
        for text in [
            "",
            "-",
            "yesterday",
            "-5",
            "nan",
            "2025-13-01T00:00:00Z",
            "10/Okt/2025:15:55:36 +0200",
            "2025-10-10T25:00:00Z",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
