//! A report as the script's arguments.

use redis::Cmd;
use sluicegate::link::Names;
use sluicegate_core::shared::{Account, Part, Report, Terms};

use super::{TRICKLE, api_name, pod_name};
use crate::keys::gate_text;

/// Appends the arguments of a report. Fails, with what is wrong, on an id that has no name.
pub(crate) fn report(
    to: &mut Cmd,
    channels: &str,
    label: &str,
    names: &Names,
    report: &Report,
) -> Result<(), String> {
    let terms = match &report.terms {
        Some(terms) => terms_text(names, terms)?,
        None => String::new(),
    };
    to.arg(channels).arg(gate_text(report.gate));
    to.arg(report.stamp.incarnation).arg(report.stamp.epoch).arg(report.number);
    to.arg(report.nonce).arg(report.server).arg(report.step).arg(report.applied);
    to.arg(report.version).arg(report.digest);
    to.arg(match report.part {
        Part::Changes => "c",
        Part::More => "m",
        Part::Last => "l",
    });
    to.arg(report.idle).arg(report.recalled);
    to.arg(report.hold_us).arg(report.past_us).arg(report.ttl_us);
    to.arg(report.done).arg(report.queued).arg(report.vtime).arg(report.unspent);
    to.arg(u8::from(report.leaving)).arg(label);
    to.arg(report.status.0).arg(report.status.1).arg(terms);
    lists(to, names, report)
}

fn lists(to: &mut Cmd, names: &Names, report: &Report) -> Result<(), String> {
    to.arg(report.holds.len());
    for (account, units) in &report.holds {
        to.arg(account_text(names, *account)?).arg(*units);
    }
    to.arg(report.used.len());
    for (api, units) in &report.used {
        to.arg(api_name(names, *api)?).arg(*units);
    }
    to.arg(report.avoid.len());
    for pod in &report.avoid {
        to.arg(pod_name(names, *pod)?);
    }
    to.arg(report.outside.len());
    for (pod, units) in &report.outside {
        to.arg(pod_name(names, *pod)?).arg(*units);
    }
    to.arg(report.waiters.len());
    for waiting in &report.waiters {
        let pin = waiting.pin.map_or(Ok(""), |pod| pod_name(names, pod))?;
        let (ticket, api, weight) = (waiting.ticket.0, api_name(names, waiting.api)?, waiting.weight);
        // Padded, so that the order of equals is that of the numbers.
        to.arg(format!("{ticket:>20}\x1f{weight}\x1f{api}\x1f{pin}")).arg(waiting.age_us);
    }
    Ok(())
}

fn account_text(names: &Names, account: Account) -> Result<String, String> {
    match account {
        Account::Api(api) => api_name(names, api).map(|name| format!("a:{name}")),
        Account::Pod(pod) => pod_name(names, pod).map(|name| format!("p:{name}")),
        Account::Trickle => Ok(TRICKLE.to_owned()),
    }
}

fn terms_text(names: &Names, terms: &Terms) -> Result<String, String> {
    // The name first, as in the list of the scripts; `-1` is "none", because null is awkward in Lua.
    let or_none = |limit: Option<u32>| limit.map_or(-1, i64::from);
    let pod = |(pod, capacity, burst): &(_, _, _)| {
        pod_name(names, *pod).map(|name| serde_json::json!([name, capacity, burst]))
    };
    let api = |(api, min, max, protected): &(_, u32, _, bool)| {
        api_name(names, *api).map(|name| serde_json::json!([name, min, or_none(*max), u8::from(*protected)]))
    };
    let terms = serde_json::json!({
        "fair": u8::from(terms.fair),
        "cap": or_none(terms.cap),
        "reserve": terms.reserve,
        "share": terms.share,
        "rate": terms.trickle_milli,
        "most": terms.trickle_most,
        "pods": terms.pods.iter().map(pod).collect::<Result<Vec<_>, String>>()?,
        "apis": terms.apis.iter().map(api).collect::<Result<Vec<_>, String>>()?,
    });
    Ok(terms.to_string())
}

#[cfg(test)]
mod tests {
    use redis::{Arg, cmd};
    use sluicegate_core::ids::{ApiId, PodId, Ticket};
    use sluicegate_core::shared::{GateId, Stamp, Waiting};

    use super::*;

    fn names() -> Names {
        Names::new(vec!["n-1".into(), "n-2".into()], vec!["quote".into(), "default".into()])
    }

    fn words(command: &Cmd) -> Vec<String> {
        let text = |arg: Arg<&[u8]>| match arg {
            Arg::Simple(bytes) => String::from_utf8(bytes.to_vec()).expect("text"),
            _ => "?".to_owned(),
        };
        command.args_iter().skip(1).map(text).collect()
    }

    fn quiet() -> Report {
        Report {
            gate: GateId(0xff),
            stamp: Stamp { incarnation: u64::MAX, epoch: 3 },
            number: 4,
            nonce: 5,
            server: u64::MAX - 1,
            step: 6,
            applied: 7,
            version: 8,
            part: Part::Changes,
            holds: vec![],
            used: vec![],
            idle: 9,
            waiters: vec![],
            recalled: 10,
            hold_us: 11,
            past_us: 12,
            ttl_us: 13,
            digest: 14,
            terms: None,
            done: 15,
            queued: 16,
            vtime: 17,
            unspent: 18,
            avoid: vec![],
            outside: vec![],
            leaving: true,
            status: (19, 20),
        }
    }

    #[test]
    fn a_quiet_report() {
        let mut command = cmd("EVALSHA");
        report(&mut command, "sluicegate:{p}:to:", "west", &names(), &quiet()).expect("all have names");
        let expected = "sluicegate:{p}:to: 000000000000000000000000000000ff 18446744073709551615 3 4 5 \
                        18446744073709551614 6 7 8 14 c 9 10 11 12 13 15 16 17 18 1 west 19 20 - 0 0 0 0 0";
        let expected: Vec<&str> =
            expected.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        assert_eq!(words(&command), expected);
    }

    #[test]
    fn a_full_report() {
        let mut full = quiet();
        full.part = Part::Last;
        full.leaving = false;
        full.holds = vec![(Account::Api(ApiId(0)), 4), (Account::Pod(PodId(1)), 20), (Account::Trickle, 2)];
        full.used = vec![(ApiId(1), 3)];
        let waiting = Waiting { ticket: Ticket(77), api: ApiId(0), weight: 2, pin: None, age_us: -5 };
        full.waiters = vec![waiting, Waiting { ticket: Ticket(78), pin: Some(PodId(0)), ..waiting }];
        full.avoid = vec![PodId(1)];
        full.outside = vec![(PodId(0), 6)];
        full.terms = Some(Box::new(Terms {
            fair: true,
            cap: None,
            reserve: 1,
            share: 2,
            trickle_milli: 20_000,
            trickle_most: 3,
            pods: vec![(PodId(0), 20, 0), (PodId(1), 10, 2)],
            apis: vec![(ApiId(0), 5, Some(8), true), (ApiId(1), 0, None, false)],
        }));
        let mut command = cmd("EVALSHA");
        report(&mut command, "to:", "", &names(), &full).expect("all have names");
        let words = words(&command);
        assert_eq!((words[11].as_str(), words[21].as_str()), ("l", "0"));
        let terms = r#"{"apis":[["quote",5,8,1],["default",0,-1,0]],"cap":-1,"fair":1,"most":3,"pods":[["n-1",20,0],["n-2",10,2]],"rate":20000,"reserve":1,"share":2}"#;
        let same: serde_json::Value = serde_json::from_str(&words[25]).expect("JSON");
        assert_eq!(same, serde_json::from_str::<serde_json::Value>(terms).expect("JSON"));
        let lists = "3 a:quote 4 p:n-2 20 t 2 1 default 3 1 n-2 1 n-1 6 2 77/2/quote/ -5 78/2/quote/n-1 -5";
        let said: Vec<String> =
            words[26..].iter().map(|word| word.trim_start().replace('\x1f', "/")).collect();
        assert_eq!(said, lists.split(' ').collect::<Vec<_>>());
    }

    #[test]
    fn an_id_without_a_name_is_an_error() {
        let mut bad = quiet();
        bad.avoid = vec![PodId(2)];
        let error = report(&mut cmd("EVALSHA"), "to:", "", &names(), &bad).expect_err("no such pod");
        assert_eq!(error, "pod 2 has no name");
    }
}
