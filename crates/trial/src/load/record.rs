//! What a run has seen, as data: written and read as JSON lines, summed up by api.

use std::fmt;
use std::io::{self, BufRead, Write};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::runner::LAG_MAX;

/// One arrival and what became of it. Times are microseconds after the start of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Index of [`Plan::apis`].
    pub api: usize,
    /// When it should have been sent.
    pub planned_us: u64,
    /// When it was sent.
    pub sent_us: u64,
    /// When the last byte of the answer was read, or the request failed.
    pub done_us: u64,
    /// The answer's status; 0 if there was none.
    pub status: u16,
    /// The answering pod, from the header `x-trial-pod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Time of work asked for.
    pub hold_us: u64,
    /// Time that the gate says the request waited for room, from `Server-Timing: admission;dur=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_us: Option<u64>,
    /// Why there was no whole answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Sample {
    /// Answered 2xx to the last byte.
    #[must_use]
    pub fn is_served(&self) -> bool {
        (200..300).contains(&self.status) && self.error.is_none()
    }

    /// Answered 429.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.status == 429
    }

    /// Microseconds between the planned and the real sending.
    #[must_use]
    pub fn lag_us(&self) -> u64 {
        self.sent_us.saturating_sub(self.planned_us)
    }

    /// Microseconds that the request was really on its way without the gate's waiting: the measured hold.
    #[must_use]
    pub fn held_us(&self) -> u64 {
        self.done_us.saturating_sub(self.sent_us).saturating_sub(self.waited_us.unwrap_or(0))
    }
}

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The load that was sent.
    pub plan: Plan,
    /// Microseconds at the start that the summary leaves out.
    pub warmup_us: u64,
    /// One for each arrival, in the order of the plan.
    pub samples: Vec<Sample>,
}

/// The first line of a record.
#[derive(Serialize, Deserialize)]
struct Head {
    plan: Plan,
    warmup_us: u64,
}

impl Record {
    /// Writes JSON lines: first the plan, then one line for each sample.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = Head { plan: self.plan.clone(), warmup_us: self.warmup_us };
        writeln!(out, "{}", serde_json::to_string(&head)?)?;
        for sample in &self.samples {
            writeln!(out, "{}", serde_json::to_string(sample)?)?;
        }
        Ok(())
    }

    /// Reads what [`Record::write_to`] wrote.
    ///
    /// # Errors
    /// The reader's, or `InvalidData` with the number of the line that is not as it should be.
    pub fn read_from(input: &mut dyn BufRead) -> io::Result<Self> {
        let mut lines = input.lines().enumerate();
        let (_, first) = lines.next().ok_or_else(|| bad_line(0, "the record is empty"))?;
        let head: Head = serde_json::from_str(&first?).map_err(|error| bad_line(0, error))?;
        let mut samples = Vec::new();
        for (index, line) in lines {
            samples.push(serde_json::from_str(&line?).map_err(|error| bad_line(index, error))?);
        }
        Ok(Self { plan: head.plan, warmup_us: head.warmup_us, samples })
    }

    /// The largest lag of any sample, also of those in the warm-up, in microseconds.
    #[must_use]
    pub fn lag_us_max(&self) -> u64 {
        self.samples.iter().map(Sample::lag_us).max().unwrap_or(0)
    }

    /// The samples planned after the warm-up.
    pub fn counted(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.planned_us >= self.warmup_us)
    }

    /// Sums the run up.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let counted_s = (self.plan.seconds - self.warmup_us as f64 / 1e6).max(f64::MIN_POSITIVE);
        let apis = self.plan.apis.iter().enumerate().map(|(api, shape)| {
            let name = format!("{} {}", shape.method, shape.path);
            let samples = self.counted().filter(|sample| sample.api == api);
            summed(name, samples.map(|sample| (shape.weight, sample)), counted_s)
        });
        let weight = |sample: &Sample| self.plan.apis.get(sample.api).map_or(0, |shape| shape.weight);
        let all = self.counted().map(|sample| (weight(sample), sample));
        let lag_us_max = self.lag_us_max();
        Summary {
            void: u128::from(lag_us_max) > LAG_MAX.as_micros(),
            lag_us_max,
            apis: apis.collect(),
            total: summed("total".to_owned(), all, counted_s),
        }
    }
}

fn bad_line(index: usize, what: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("line {} of the record: {what}", index + 1))
}

/// A run in figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The load lagged by more than [`LAG_MAX`]: it was not the planned one, and no figure here counts.
    pub void: bool,
    /// Largest lag, microseconds.
    pub lag_us_max: u64,
    /// As [`Plan::apis`].
    pub apis: Vec<ApiSummary>,
    /// All together.
    pub total: ApiSummary,
}

/// One api in figures. Latencies are from the planned sending to the last byte, of served requests only, in
/// microseconds within 0.1 %; all are 0 if none was served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiSummary {
    /// Method and path, or `total`.
    pub name: String,
    /// Requests sent after the warm-up.
    pub requests: u64,
    /// Answered 429.
    pub refused: u64,
    /// Neither 2xx nor 429, or broken off.
    pub failed: u64,
    /// `refused` / `requests`, 0..=1.
    pub refused_share: f64,
    /// Median latency.
    pub p50_us: u64,
    /// 90 % were no slower.
    pub p90_us: u64,
    /// 99 % were no slower.
    pub p99_us: u64,
    /// 99.9 % were no slower.
    pub p999_us: u64,
    /// Mean units busy with requests that were served: weight x hold asked for, per time.
    pub goodput_units: f64,
}

fn summed<'a>(name: String, samples: impl Iterator<Item = (u32, &'a Sample)>, counted_s: f64) -> ApiSummary {
    let mut latencies = Histogram::<u64>::new(3).expect("3 digits are between 0 and 5");
    let (mut requests, mut refused, mut failed, mut unit_us) = (0, 0, 0, 0.0);
    for (weight, sample) in samples {
        requests += 1;
        if sample.is_served() {
            // A `saturating_record` would not grow the histogram, and clip instead.
            let latency_us = sample.done_us.saturating_sub(sample.planned_us);
            latencies.record(latency_us).expect("a histogram made without bounds grows");
            unit_us += f64::from(weight) * sample.hold_us as f64;
        } else if sample.is_refused() {
            refused += 1;
        } else {
            failed += 1;
        }
    }
    ApiSummary {
        name,
        requests,
        refused,
        failed,
        refused_share: refused as f64 / requests.max(1) as f64,
        p50_us: latencies.value_at_quantile(0.5),
        p90_us: latencies.value_at_quantile(0.9),
        p99_us: latencies.value_at_quantile(0.99),
        p999_us: latencies.value_at_quantile(0.999),
        goodput_units: unit_us / 1e6 / counted_s,
    }
}
