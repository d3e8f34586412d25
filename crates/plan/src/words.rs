//! Options as they are typed: durations, service times, shares, sweeps.

use std::str::FromStr;

use sluicegate_config::Fault;
use sluicegate_sim::Service;

/// Longest duration that an option may name: a day. Longer is a slip of the unit.
const DURATION_MAX_US: f64 = 86_400e6;

/// A fault in an option.
pub(crate) fn fault(what: impl Into<String>, mend: impl Into<String>) -> Fault {
    Fault { what: what.into(), mend: mend.into() }
}

/// `50ms`, `1.5s`, `300us`, `2m`, `7ns`; microseconds. `None` if it is none of these.
pub(crate) fn duration_us(text: &str) -> Option<f64> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "ns" => 1e-3,
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

/// A duration of an option, microseconds, rounded.
///
/// # Errors
/// The text is no duration, or one above a day.
pub fn duration(text: &str) -> Result<u64, Fault> {
    let mend = "write it like 500us, 50ms or 1.5s";
    let us = if text == "0" { Some(0.0) } else { duration_us(text) };
    let us = us.ok_or_else(|| fault(format!("`{text}` is no duration"), mend))?;
    if us > DURATION_MAX_US {
        return Err(fault(format!("`{text}` is longer than a day"), mend));
    }
    Ok(us.round() as u64)
}

/// Service times of one api, or of all that have none of their own: `report=lognormal:300ms:1.0`, `exp:100ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceOf {
    /// The api; `None` for all others.
    pub api: Option<String>,
    /// How long its requests hold their units.
    pub service: Service,
}

impl FromStr for ServiceOf {
    type Err = Fault;

    fn from_str(text: &str) -> Result<ServiceOf, Fault> {
        let (api, form) = match text.split_once('=') {
            Some((api, form)) => (Some(api.trim().to_owned()), form),
            None => (None, text),
        };
        Ok(ServiceOf { api, service: service(form.trim())? })
    }
}

fn service(text: &str) -> Result<Service, Fault> {
    let mend = "write `exp:100ms`, `fixed:50ms` or `lognormal:100ms:1.0`, with `API=` before it for one api";
    let bad = |why: String| fault(format!("service `{text}`: {why}"), mend);
    let positive = |text: &str| match duration(text) {
        Ok(0) => Err(bad("a mean of 0".to_owned())),
        Ok(us) => Ok(us),
        Err(fault) => Err(bad(fault.what)),
    };
    match text.split(':').collect::<Vec<_>>()[..] {
        [mean] | ["exp", mean] => Ok(Service::Exponential(positive(mean)?)),
        ["fixed", us] => Ok(Service::Fixed(positive(us)?)),
        ["lognormal", mean, sigma] => {
            let parsed: Option<f64> = sigma.parse().ok().filter(|sigma| (0.0..=5.0).contains(sigma));
            let sigma = parsed.ok_or_else(|| bad(format!("`{sigma}` is no deviation from 0 to 5")))?;
            Ok(Service::LogNormal { mean_us: positive(mean)?, sigma })
        }
        _ => Err(bad("no such form".to_owned())),
    }
}

/// An api's part of the requests: `report=10`. Only the ratios of all shares matter.
#[derive(Clone, Debug, PartialEq)]
pub struct ShareOf {
    /// The api.
    pub api: String,
    /// Its part, above 0.
    pub share: f64,
}

impl FromStr for ShareOf {
    type Err = Fault;

    fn from_str(text: &str) -> Result<ShareOf, Fault> {
        let bad = |why: &str| fault(format!("share `{text}`: {why}"), "write it like `report=10`");
        let (api, share) = text.split_once('=').ok_or_else(|| bad("no `=`"))?;
        let share = share.trim().trim_end_matches('%').parse().ok();
        let share = share.filter(|share: &f64| share.is_finite() && *share > 0.0);
        Ok(ShareOf { api: api.trim().to_owned(), share: share.ok_or_else(|| bad("not a number above 0"))? })
    }
}

/// What is varied, and over which values: `load=0.5..1.2`, `load=0.5..1.2:0.05`, `pods=6..12`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// What is varied.
    pub over: Over,
    /// In rising order, at least two.
    pub values: Vec<f64>,
}

/// What a [`Sweep`] varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Offered units over the pool's units.
    Load,
    /// Number of pods, under the traffic as it is.
    Pods,
}

/// Most values of one sweep.
const SWEEP_MAX: usize = 50;

impl FromStr for Sweep {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Sweep, Fault> {
        let mend = "write `load=0.5..1.2`, with a step `load=0.5..1.2:0.05`, or `pods=6..12`";
        let bad = |why: &str| fault(format!("sweep `{text}`: {why}"), mend);
        let (what, range) = text.split_once('=').ok_or_else(|| bad("no `=`"))?;
        let over = match what.trim() {
            "load" => Over::Load,
            "pods" => Over::Pods,
            _ => return Err(bad("only `load` and `pods` can be varied")),
        };
        let (range, step) = match range.split_once(':') {
            Some((range, step)) => (range, Some(step)),
            None => (range, None),
        };
        let (from, to) = range.split_once("..").ok_or_else(|| bad("no `..`"))?;
        let number = |text: &str| {
            let value: Option<f64> = text.trim().parse().ok();
            value.filter(|value| value.is_finite() && *value > 0.0)
        };
        let from = number(from).ok_or_else(|| bad("the first value is not a number above 0"))?;
        let to = number(to).ok_or_else(|| bad("the last value is not a number above 0"))?;
        let step = step.map(|step| number(step).ok_or_else(|| bad("the step is not a number above 0")));
        let step = step.transpose()?.unwrap_or_else(|| if over == Over::Load { 0.1 } else { 1.0 });
        if to <= from {
            return Err(bad("the last value is not above the first"));
        }
        if over == Over::Load && to > 5.0 {
            return Err(bad("a load above 5"));
        }
        let whole = |value: f64| value.fract() == 0.0;
        if over == Over::Pods && !(whole(from) && whole(to) && whole(step)) {
            return Err(bad("pods are whole"));
        }
        let steps = ((to - from) / step + 1e-9).floor() as usize;
        if steps >= SWEEP_MAX {
            return Err(bad("more than 50 values"));
        }
        // Rounded, so that 0.1 steps do not print as 0.7999999.
        let value = |index: usize| ((from + index as f64 * step) * 1e6).round() / 1e6;
        let mut values: Vec<f64> = (0..=steps).map(value).collect();
        if values.last().is_some_and(|last| to - last > 1e-6) {
            values.push(to);
        }
        Ok(Sweep { over, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_services() {
        assert_eq!(duration("50ms"), Ok(50_000));
        assert_eq!(duration("0"), Ok(0));
        assert_eq!(duration("1.5s"), Ok(1_500_000));
        assert!(duration("50").is_err() && duration("-1s").is_err() && duration("9999m").is_err());
        let one: ServiceOf = "report=lognormal:300ms:1.0".parse().expect("good");
        assert_eq!(one.api.as_deref(), Some("report"));
        assert_eq!(one.service, Service::LogNormal { mean_us: 300_000, sigma: 1.0 });
        assert_eq!(service("20ms"), Ok(Service::Exponential(20_000)));
        for bad in ["exp:0ms", "gauss:1ms", "lognormal:1ms:x", "exp"] {
            assert!(service(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sweeps_have_their_ends() {
        let sweep: Sweep = "load=0.5..1.2".parse().expect("good");
        assert_eq!(sweep.values, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]);
        let sweep: Sweep = "load=0.5..0.75:0.1".parse().expect("good");
        assert_eq!(sweep.values, [0.5, 0.6, 0.7, 0.75]);
        let sweep: Sweep = "pods=6..8".parse().expect("good");
        assert_eq!(sweep.values, [6.0, 7.0, 8.0]);
        for bad in
            ["load", "wait=1..2", "load=1..", "load=1..0.5", "pods=1..2.5", "load=0.1..5:0.01", "load=1..6"]
        {
            assert!(bad.parse::<Sweep>().is_err(), "{bad}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!("a=10%".parse(), Ok(ShareOf { api: "a".to_owned(), share: 10.0 }));
        for bad in ["a", "a=0", "a=-1", "a=x"] {
            assert!(bad.parse::<ShareOf>().is_err(), "{bad}");
        }
    }
}
