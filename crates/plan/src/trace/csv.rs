//! CSV with a header: `time`, then `api` (or `path`, with or without `method`), then `duration`.
//!
//! Numbers are seconds unless the column's name ends in `_ns`, `_us`, `_ms`. `end` instead of `time` is when the
//! answer ended. Also known: `status`, `cost` (what a request takes while it runs), `cpu_ms`.

use super::{CostKind, Record, Who, Wrong, duration_us, path_of, short, status, time};

const UNITS: [(&str, f64); 4] = [("_ns", 1e-3), ("_us", 1.0), ("_ms", 1e3), ("_s", 1e6)];

/// Which column holds what.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Columns {
    count: usize,
    time: usize,
    /// Microseconds of 1; `None`: as [`time::moment`] reads it.
    time_unit_us: Option<f64>,
    is_end: bool,
    api: Option<usize>,
    method: Option<usize>,
    path: Option<usize>,
    duration: Option<(usize, f64)>,
    status: Option<usize>,
    cost: Option<usize>,
    is_cpu: bool,
}

impl Columns {
    pub(super) fn cost_kind(&self) -> CostKind {
        match self.cost {
            None => CostKind::None,
            Some(_) if self.is_cpu => CostKind::Cpu,
            Some(_) => CostKind::Held,
        }
    }

    pub(super) fn of_header(line: &str) -> Result<Columns, Wrong> {
        let mend = "the first line names the columns: time,api,duration (see docs/plan.md)";
        let fields = fields(line)?;
        let mut columns = Columns { count: fields.len(), time: usize::MAX, ..Columns::default() };
        for (index, (column, name)) in fields.iter().enumerate() {
            let name = name.trim().to_ascii_lowercase();
            let unit = UNITS.iter().find(|(ending, _)| name.ends_with(ending));
            let (stem, unit_us) = match unit {
                Some((ending, us)) => (name.strip_suffix(ending).unwrap_or(&name), Some(*us)),
                None => (name.as_str(), None),
            };
            match stem {
                "time" | "timestamp" | "start" | "end" => {
                    columns.time = index;
                    columns.time_unit_us = unit_us;
                    columns.is_end = stem == "end";
                }
                "api" => columns.api = Some(index),
                "method" => columns.method = Some(index),
                "path" | "uri" | "url" => columns.path = Some(index),
                "duration" | "latency" | "hold" => columns.duration = Some((index, unit_us.unwrap_or(1e6))),
                "status" => columns.status = Some(index),
                "cost" | "cpu" => {
                    columns.cost = Some(index);
                    columns.is_cpu = stem == "cpu";
                    if columns.is_cpu && unit_us != Some(1e3) {
                        let mend = "name it `cpu_ms` and give milliseconds";
                        return Err(Wrong::new(*column, format!("column `{}`", short(&name)), mend));
                    }
                }
                _ if index == 0 => {
                    let what = format!("`{}` begins neither an access log nor a CSV header", short(&name));
                    return Err(Wrong::new(*column, what, mend));
                }
                // Columns of others do no harm.
                _ => {}
            }
        }
        if columns.time == usize::MAX {
            return Err(Wrong::new(1, "no column `time`", mend));
        }
        if columns.api.or(columns.path).is_none() {
            return Err(Wrong::new(1, "no column `api`, nor `path`", mend));
        }
        Ok(columns)
    }

    pub(super) fn record(&self, line: &str) -> Result<Record, Wrong> {
        let fields = fields(line)?;
        if fields.len() != self.count {
            let what = format!("{} fields where the header has {}", fields.len(), self.count);
            let column = fields.get(self.count).map_or(line.chars().count() + 1, |(column, _)| *column);
            return Err(Wrong::new(column, what, "complete the line, or remove it"));
        }
        let field = |index: usize| (fields[index].0, fields[index].1.as_str());
        let (column, text) = field(self.time);
        let moment = match (self.time_unit_us, text.trim().parse::<f64>()) {
            (Some(unit), Ok(number)) if number.is_finite() && number >= 0.0 => Some((number * unit, false)),
            (Some(_), _) => None,
            (None, _) => time::moment(text),
        };
        let Some((time_us, is_whole)) = moment else {
            let mend = "seconds, or RFC 3339 such as 2026-10-10T13:55:36.125Z";
            return Err(Wrong::new(column, format!("`{}` is no time", short(text)), mend));
        };
        let who = match (self.api, self.path) {
            (Some(api), _) => Who::Api(fields[api].1.trim().to_owned(), fields[api].0),
            (None, path) => {
                let method = self.method.map_or("GET", |method| fields[method].1.trim());
                let path = path.map_or("/", |path| fields[path].1.trim());
                Who::Request(method.to_owned(), path_of(path))
            }
        };
        let duration = self.duration.map(|(index, unit)| duration_us(field(index).1, unit, field(index).0));
        let status = self.status.map(|index| status(field(index).1, field(index).0));
        Ok(Record {
            time_us,
            is_end: self.is_end,
            is_whole,
            who,
            duration_us: duration.transpose()?.flatten(),
            status: status.transpose()?.flatten(),
            cost: self.cost.map(|index| cost(field(index))).transpose()?.flatten(),
        })
    }
}

fn cost((column, text): (usize, &str)) -> Result<Option<f64>, Wrong> {
    let text = text.trim();
    if text.is_empty() || text == "-" {
        return Ok(None);
    }
    let cost = text.parse().ok().filter(|cost: &f64| cost.is_finite() && *cost >= 0.0);
    let wrong =
        || Wrong::new(column, format!("cost `{}`", short(text)), "a number from 0 up; `-` if unknown");
    cost.map(Some).ok_or_else(wrong)
}

/// Fields with their columns. A field in quotes may hold commas; `""` in it is a quote.
fn fields(line: &str) -> Result<Vec<(usize, String)>, Wrong> {
    let mut fields = Vec::new();
    let mut chars = line.chars().enumerate().peekable();
    loop {
        let column = chars.peek().map_or(line.chars().count(), |(at, _)| *at) + 1;
        let mut field = String::new();
        if chars.next_if(|(_, c)| *c == '"').is_some() {
            loop {
                match chars.next() {
                    Some((_, '"')) if chars.next_if(|(_, c)| *c == '"').is_some() => field.push('"'),
                    Some((_, '"')) => break,
                    Some((_, c)) => field.push(c),
                    None => {
                        let what = "a quote that is never closed";
                        return Err(Wrong::new(column, what, "close it, or write \"\" for a quote"));
                    }
                }
            }
        }
        while let Some((_, c)) = chars.next_if(|(_, c)| *c != ',') {
            field.push(c);
        }
        fields.push((column, field));
        if chars.next().is_none() {
            return Ok(fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_from_the_names() {
        let columns = Columns::of_header("time_ms,api,duration_us,status,other").expect("good");
        let one = columns.record("1500,\"re,port\",250,200,x").expect("good");
        assert_eq!((one.time_us, one.duration_us, one.status), (1_500_000.0, Some(250.0), Some(200)));
        assert_eq!(one.who, Who::Api("re,port".to_owned(), 6));
        let columns = Columns::of_header("time,method,path,duration").expect("good");
        let one = columns.record("0.5,POST,/orders,30ms").expect("good");
        assert_eq!(one.who, Who::Request("POST".to_owned(), "/orders".to_owned()));
        assert_eq!(one.duration_us, Some(30_000.0));
        assert_eq!(columns.record("0.5,POST,/orders,0.03").expect("good").duration_us, Some(30_000.0));
    }

    #[test]
    fn what_is_wrong_has_its_column() {
        let columns = Columns::of_header("time,api,duration,cost").expect("good");
        let wrong = |line: &str| columns.record(line).expect_err(line).column;
        assert_eq!(wrong("soon,a,1,1"), 1);
        assert_eq!(wrong("1,a,slow,1"), 5);
        assert_eq!(wrong("1,a,1,-2"), 7);
        assert_eq!(wrong("1,a"), 4);
        assert_eq!(wrong("1,a,1,1,9"), 9);
        assert_eq!(wrong("1,\"a,1,1"), 3);
        for header in ["hello world", "api,duration", "time,duration", "time,api,cpu"] {
            assert!(Columns::of_header(header).is_err(), "{header}");
        }
    }
}
