//! Recorded traffic: access logs (common, combined, JSON) and CSV.
//!
//! Which form a file has is seen from its first line. Every line that cannot be read is a problem with its line and
//! column.

mod csv;
mod json;
mod log;
mod time;

use std::io::BufRead;

use fastrand::Rng;
use sluicegate_config::{Config, Problem, Problems};

/// Most problems that are listed.
const PROBLEMS_MAX: usize = 20;
/// Longest hold that is believed, microseconds: a day.
const HOLD_MAX_US: f64 = 86_400e6;
/// Answers after which no pod had worked on the request.
const REFUSED: [u16; 2] = [429, 503];

/// Recorded requests.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// In the order of the file.
    pub rows: Vec<Row>,
    /// What the file says of costs.
    pub cost: CostKind,
    /// What was assumed or left out, in sentences.
    pub notes: Vec<String>,
}

/// One recorded request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Microseconds since the first second of the trace.
    pub at_us: u64,
    /// Index into the policy's apis.
    pub api: usize,
    /// How long it was worked on, microseconds; `None` if it was refused or the trace does not say.
    pub hold_us: Option<u64>,
    /// What it cost, in the sense of [`Trace::cost`].
    pub cost: Option<f64>,
}

/// What a trace says of costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CostKind {
    /// Nothing but durations.
    #[default]
    None,
    /// What a request takes while it runs (column `cost`), in any unit: memory, connections, threads.
    Held,
    /// Processor time of the whole request (column `cpu_ms`), milliseconds.
    Cpu,
}

/// One line, before it is known which api it is for.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    /// Microseconds since 1970, or since any other moment.
    time_us: f64,
    /// Whether `time_us` is when the answer ended.
    is_end: bool,
    /// Whether the time had no fraction of a second.
    is_whole: bool,
    who: Who,
    /// Microseconds.
    duration_us: Option<f64>,
    status: Option<u16>,
    cost: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
enum Who {
    /// An api's name, and its column.
    Api(String, usize),
    /// Method and path.
    Request(String, String),
}

/// What is wrong in a line, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wrong {
    /// In characters, from 1.
    column: usize,
    what: String,
    mend: String,
}

impl Wrong {
    fn new(column: usize, what: impl Into<String>, mend: impl Into<String>) -> Wrong {
        Wrong { column, what: what.into(), mend: mend.into() }
    }
}

enum Form {
    Csv(csv::Columns),
    Json,
    Log,
}

impl Trace {
    /// Reads a trace. Requests are given to apis by name, or by the routes of `config`. `file` stands in the problems.
    /// With `skips` a line that cannot be read is left out and counted in a note; without it is a problem.
    ///
    /// # Errors
    /// Every problem, 20 at most; with `skips` only what makes the whole file useless.
    pub fn read(file: &str, input: impl BufRead, config: &Config, skips: bool) -> Result<Trace, Problems> {
        let mut reading =
            Reading { config, file, rows: Vec::new(), problems: Vec::new(), bad: 0, cost: CostKind::None };
        let mut form = None;
        for (index, line) in input.split(b'\n').enumerate() {
            let line = line.map_err(|error| unreadable(file, &error))?;
            // Old logs bear bytes of any code; names and figures are ASCII.
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r').trim_start_matches('\u{feff}');
            if line.trim().is_empty() {
                continue;
            }
            let Some(known) = &form else {
                match begin(line) {
                    Ok((first, is_header)) => {
                        if let Form::Csv(columns) = &first {
                            reading.cost = columns.cost_kind();
                        }
                        if !is_header {
                            reading.take(&first, index + 1, line);
                        }
                        form = Some(first);
                    }
                    Err(wrong) => return Err(Problems(vec![problem(file, index + 1, wrong)])),
                }
                continue;
            };
            reading.take(known, index + 1, line);
            if !skips && reading.bad > PROBLEMS_MAX {
                break;
            }
        }
        reading.finish(skips)
    }
}

/// Which form a file of this first line has, and whether the line is a header.
fn begin(line: &str) -> Result<(Form, bool), Wrong> {
    if line.trim_start().starts_with('{') {
        return Ok((Form::Json, false));
    }
    if line.contains(" [") && line.contains('"') {
        return Ok((Form::Log, false));
    }
    csv::Columns::of_header(line).map(|columns| (Form::Csv(columns), true))
}

struct Reading<'a> {
    config: &'a Config,
    file: &'a str,
    rows: Vec<(Record, usize)>,
    problems: Vec<Problem>,
    bad: usize,
    cost: CostKind,
}

impl Reading<'_> {
    fn take(&mut self, form: &Form, number: usize, line: &str) {
        let record = match form {
            Form::Csv(columns) => columns.record(line),
            Form::Json => json::record(line),
            Form::Log => log::record(line),
        };
        match record.and_then(|record| self.api_of(&record).map(|api| (record, api))) {
            Ok(row) => {
                if row.0.cost.is_some() && self.cost == CostKind::None {
                    self.cost = json::COST;
                }
                self.rows.push(row);
            }
            Err(wrong) => {
                self.bad += 1;
                if self.problems.len() < PROBLEMS_MAX {
                    self.problems.push(problem(self.file, number, wrong));
                }
            }
        }
    }

    fn api_of(&self, record: &Record) -> Result<usize, Wrong> {
        match &record.who {
            Who::Request(method, path) => Ok(self.config.routes.find(method, path)),
            Who::Api(name, column) => {
                let apis = &self.config.policy.apis;
                let found = apis.iter().position(|api| api.name == *name);
                found.ok_or_else(|| {
                    let names: Vec<&str> = apis.iter().map(|api| api.name.as_str()).collect();
                    let mend = format!("name one of: {}", names.join(", "));
                    Wrong::new(*column, format!("the configuration has no api `{}`", short(name)), mend)
                })
            }
        }
    }

    fn finish(mut self, skips: bool) -> Result<Trace, Problems> {
        let mut notes = Vec::new();
        if !self.problems.is_empty() && (!skips || self.rows.is_empty()) {
            if !skips && let Some(last) = self.problems.last_mut() {
                last.mend.push_str(" (or leave out such lines by --skip-bad-lines)");
            }
            return Err(Problems(self.problems));
        }
        if let Some(first) = self.problems.first() {
            notes.push(format!(
                "{} lines cannot be read and were left out, the first of them line {}",
                self.bad, first.line
            ));
        }
        if self.rows.is_empty() {
            let wrong =
                Wrong::new(0, "no request in it", "give an access log or a CSV with a header and rows");
            return Err(Problems(vec![problem(self.file, 0, wrong)]));
        }
        spread_seconds(&mut self.rows, &mut notes);
        let starts: Vec<f64> = self.rows.iter().map(|(record, _)| start_of(record)).collect();
        let first = starts.iter().copied().fold(f64::INFINITY, f64::min);
        let row = |((record, api), start): (&(Record, usize), f64)| Row {
            at_us: (start - first).round() as u64,
            api: *api,
            hold_us: hold_of(record),
            cost: record.cost,
        };
        let rows = self.rows.iter().zip(starts).map(row).collect();
        Ok(Trace { rows, cost: self.cost, notes })
    }
}

fn start_of(record: &Record) -> f64 {
    if record.is_end { record.time_us - record.duration_us.unwrap_or(0.0) } else { record.time_us }
}

fn hold_of(record: &Record) -> Option<u64> {
    if record.status.is_some_and(|status| REFUSED.contains(&status)) {
        return None;
    }
    record.duration_us.map(|us| us.min(HOLD_MAX_US).round() as u64)
}

/// Times without fractions put all requests of a second at its beginning, which no pool ever saw.
fn spread_seconds(rows: &mut [(Record, usize)], notes: &mut Vec<String>) {
    let is_shared = rows.windows(2).any(|pair| pair[0].0.time_us == pair[1].0.time_us);
    if !is_shared || rows.iter().any(|(record, _)| !record.is_whole) {
        return;
    }
    let mut random = Rng::with_seed(1);
    rows.iter_mut().for_each(|(record, _)| record.time_us += random.f64() * 1e6);
    notes.push("times are whole seconds: the requests of a second were spread over it at random".to_owned());
}

fn problem(file: &str, line: usize, wrong: Wrong) -> Problem {
    Problem { file: file.to_owned(), line, column: wrong.column, what: wrong.what, mend: wrong.mend }
}

fn unreadable(file: &str, error: &std::io::Error) -> Problems {
    let mend = "give the path of a text file that this user may read";
    Problems(vec![problem(file, 0, Wrong::new(0, format!("cannot be read: {error}"), mend))])
}

/// A value as it may stand in a message.
fn short(text: &str) -> String {
    let mut short: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().nth(40).is_some() {
        short.push('…');
    }
    short
}

/// A duration, microseconds: `12ms`, or a bare number in `unit_us`. `-` and nothing: unknown.
fn duration_us(text: &str, unit_us: f64, column: usize) -> Result<Option<f64>, Wrong> {
    let text = text.trim();
    if text.is_empty() || text == "-" {
        return Ok(None);
    }
    let bare = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let us = bare.map(|number| number * unit_us).or_else(|| crate::words::duration_us(text));
    us.map(Some).ok_or_else(|| {
        let mend = "write it like 0.012 (seconds) or 12ms; `-` if it is unknown";
        Wrong::new(column, format!("duration `{}` is neither a number nor a duration", short(text)), mend)
    })
}

fn status(text: &str, column: usize) -> Result<Option<u16>, Wrong> {
    let text = text.trim();
    if text.is_empty() || text == "-" {
        return Ok(None);
    }
    let code: Option<u16> = text.parse().ok().filter(|code| (100..1000).contains(code));
    let mend = "a status has three digits; `-` if there is none";
    code.map(Some).ok_or_else(|| Wrong::new(column, format!("status `{}`", short(text)), mend))
}

/// `GET /path HTTP/1.1`, or method and path alone.
fn request(line: &str, column: usize) -> Result<Who, Wrong> {
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some(method), Some(path)) if method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') => {
            Ok(Who::Request(method.to_owned(), path_of(path)))
        }
        _ => {
            let mend = "a request is written `GET /path HTTP/1.1`";
            Err(Wrong::new(column, format!("`{}` is no request", short(line)), mend))
        }
    }
}

/// The path of a request target; a proxy's log may have the whole URL.
fn path_of(target: &str) -> String {
    match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]).to_owned(),
        None => target.to_owned(),
    }
}
