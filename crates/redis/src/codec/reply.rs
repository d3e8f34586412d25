//! Answers and pushes of the ledger, read.

use redis::Value;
use sluicegate::link::{Exchanged, Names};
use sluicegate_core::ids::Ticket;
use sluicegate_core::shared::{Kept, Lent, Push, Recall, Reply, Report, Stamp, Verdict};

use super::{Fields, account_of};

/// Reads the answer to a report; fails with what is wrong with it.
pub(crate) fn reply(names: &Names, report: &Report, value: &Value) -> Result<Exchanged, String> {
    let mut fields = Fields::of_value("the reply", value)?;
    let said = fields.text("verdict")?;
    let stamp = stamp(&mut fields)?;
    let verdict = match said {
        "a" => Verdict::Applied,
        "s" => Verdict::Stale,
        "r" => Verdict::Resync(stamp),
        other => return Err(fields.bad("verdict", &other, "`a`, `s` or `r`")),
    };
    let number: u64 = fields.number("number")?;
    if number != report.number {
        return Err(fields.bad("number", &number, &format!("that of the report, {}", report.number)));
    }
    let step = fields.number("step")?;
    let target = fields.number("target")?;
    let scarce = fields.flag("scarce")?;
    let recovering = fields.flag("recovering")?;
    let tight = fields.flag("tight")?;
    let pace_us = fields.number("pace_us")?;
    let version = fields.number("version")?;
    let gates = fields.number("gates")?;
    let done = fields.number("done")?;
    let queued = fields.number("queued")?;
    let vtime = fields.number("vtime")?;
    fields.number::<u64>("server time")?;
    let pushes = fields.number("pushes")?;
    let touched = fields.number("touched")?;
    let recall = recall(&mut fields, names)?;
    let kept = kept(&mut fields, names)?;
    let (lent, unknown) = lent(&mut fields, names)?;
    if let Some(name) = unknown {
        // Units that we could never give back must not be taken: the script lends only what a gate's terms list.
        return Err(format!("the reply lends of `{name}`, which this gate does not know"));
    }
    let mut scarce_apis = Vec::new();
    for _ in 0..fields.count("count of scarce apis", 1)? {
        // An api that only other gates know is none of ours to be careful with; so with accounts below.
        scarce_apis.extend(names.api(fields.text("scarce api")?));
    }
    let mut over = Vec::new();
    for _ in 0..fields.count("count of accounts over their limit", 1)? {
        over.extend(account_of(names, fields.text("account over its limit")?));
    }
    fields.end()?;
    let reply = Reply {
        stamp: report.stamp,
        number,
        verdict,
        step,
        lent,
        target,
        scarce,
        scarce_apis,
        tight,
        recovering,
        recall,
        kept,
        over,
        pace_us,
        version,
        gates,
        done,
        queued,
        vtime,
    };
    Ok(Exchanged { reply, pushes, touched })
}

/// Reads the payload of a push; fails with what is wrong with it. None: it lends of an account whose name came after
/// `names` were made. A push may be lost, so it is: the next reply says the same.
pub(crate) fn push(names: &Names, payload: &str) -> Result<Option<Push>, String> {
    let mut fields = Fields::of_lines("the push", payload);
    let stamp = stamp(&mut fields)?;
    let recall = recall(&mut fields, names)?;
    let kept = kept(&mut fields, names)?;
    let scarce = fields.flag("scarce")?;
    let (lent, unknown) = lent(&mut fields, names)?;
    fields.end()?;
    Ok(unknown.is_none().then_some(Push { stamp, lent, recall, kept, scarce }))
}

fn stamp(fields: &mut Fields<'_>) -> Result<Stamp, String> {
    Ok(Stamp { incarnation: fields.number("incarnation")?, epoch: fields.number("epoch")? })
}

fn recall(fields: &mut Fields<'_>, names: &Names) -> Result<Option<Recall>, String> {
    let (number, units, api) = (
        fields.number("number of the recall")?,
        fields.number("units of the recall")?,
        fields.text("its api")?,
    );
    Ok(match (number, api) {
        (0, _) => None,
        (_, "") => Some(Recall { number, units, api: None }),
        // Of an api that this gate does not know it has nothing to give: seen to at once.
        (_, name) => Some(match names.api(name) {
            Some(api) => Recall { number, units, api: Some(api) },
            None => Recall { number, units: 0, api: None },
        }),
    })
}

fn kept(fields: &mut Fields<'_>, names: &Names) -> Result<Option<Kept>, String> {
    let (pod, age_us) = (fields.text("kept pod")?, fields.number("age of the claim")?);
    Ok(names.pod(pod).map(|pod| Kept { pod, age_us }))
}

/// What is lent of known accounts, and the first that is unknown.
fn lent<'a>(fields: &mut Fields<'a>, names: &Names) -> Result<(Vec<Lent>, Option<&'a str>), String> {
    let count = fields.count("count of lent", 5)?;
    let (mut all, mut unknown) = (Vec::with_capacity(count), None);
    let mut before: Option<u64> = None;
    for _ in 0..count {
        let number: u64 = fields.number("number of lent")?;
        if let Some(before) = before.filter(|before| before.checked_add(1) != Some(number)) {
            return Err(fields.bad("number of lent", &number, &format!("the one after {before}")));
        }
        before = Some(number);
        let name = fields.text("account")?;
        let units = fields.number("units lent")?;
        let waiter = match fields.text("waiter")? {
            "" => None,
            ticket => match ticket.parse() {
                Ok(ticket) => Some(Ticket(ticket)),
                Err(_) => return Err(fields.bad("waiter", &ticket, "a ticket")),
            },
        };
        let flags: u8 = fields.number("flags")?;
        if flags > 3 {
            return Err(fields.bad("flags", &flags, "within 0 to 3"));
        }
        let (special, trickle) = (flags & 1 != 0, flags & 2 != 0);
        match account_of(names, name) {
            Some(account) => all.push(Lent { number, account, units, waiter, special, trickle }),
            None => unknown = unknown.or(Some(name)),
        }
    }
    Ok((all, unknown))
}

#[cfg(test)]
mod tests {
    use sluicegate_core::ids::{ApiId, PodId};
    use sluicegate_core::shared::{Account, GateId, Part};

    use super::*;

    fn names() -> Names {
        Names::new(vec!["n-1".into(), "n-2".into()], vec!["quote".into()])
    }

    fn asked() -> Report {
        Report {
            gate: GateId(1),
            stamp: Stamp { incarnation: 5, epoch: 2 },
            number: 40,
            nonce: 1,
            server: 2,
            step: 3,
            applied: 0,
            version: 0,
            part: Part::Changes,
            holds: vec![],
            used: vec![],
            idle: 0,
            waiters: vec![],
            recalled: 0,
            hold_us: 0,
            past_us: 0,
            ttl_us: 1,
            digest: 1,
            terms: None,
            done: 0,
            queued: 0,
            vtime: 0,
            unspent: 0,
            avoid: vec![],
            outside: vec![],
            leaving: false,
            status: (0, 0),
        }
    }

    /// Words as the script gives them: digits are integers but in the places of strings.
    fn value(words: &str) -> Value {
        let word = |(place, word): (usize, &str)| match word.parse() {
            Ok(number) if place != 1 && !word.starts_with('"') => Value::Int(number),
            _ => Value::BulkString(word.trim_matches('"').as_bytes().to_vec()),
        };
        Value::Array(words.split(' ').enumerate().map(word).collect())
    }

    const HEAD: &str = "a 5 2 40 9 12 0 1 1 400 7 4 100 60 0 1700000000000000 2 17";

    fn read(tail: &str) -> Result<Exchanged, String> {
        reply(&names(), &asked(), &value(&format!("{HEAD} {tail}")))
    }

    #[test]
    fn a_quiet_reply() {
        let answer = read(r#"0 0 "" "" 0 0 0 0"#).expect("well formed");
        let expected = Reply {
            stamp: Stamp { incarnation: 5, epoch: 2 },
            number: 40,
            verdict: Verdict::Applied,
            step: 9,
            lent: vec![],
            target: 12,
            scarce: false,
            scarce_apis: vec![],
            tight: true,
            recovering: true,
            recall: None,
            kept: None,
            over: vec![],
            pace_us: 400,
            version: 7,
            gates: 4,
            done: 100,
            queued: 60,
            vtime: 0,
        };
        assert_eq!(answer, Exchanged { reply: expected, pushes: 2, touched: 17 });
    }

    #[test]
    fn a_full_reply() {
        let lists = r#"2 8 p:n-2 3 "18446744073709551615" 3 9 t 3 "" 3 1 quote 3 a:quote p:n-1 p:other"#;
        let answer = read(&format!(r#"6 2 quote n-1 -30 {lists}"#)).expect("well formed").reply;
        assert_eq!(answer.recall, Some(Recall { number: 6, units: 2, api: Some(ApiId(0)) }));
        assert_eq!(answer.kept, Some(Kept { pod: PodId(0), age_us: -30 }));
        let first = Lent {
            number: 8,
            account: Account::Pod(PodId(1)),
            units: 3,
            waiter: Some(Ticket(u64::MAX)),
            special: true,
            trickle: true,
        };
        let second = Lent { number: 9, account: Account::Trickle, waiter: None, ..first };
        assert_eq!(answer.lent, [first, second]);
        assert_eq!(answer.scarce_apis, [ApiId(0)]);
        assert_eq!(answer.over, [Account::Api(ApiId(0)), Account::Pod(PodId(0))]);
    }

    #[test]
    fn a_resync_brings_the_new_stamp_and_a_stale_one_the_old() {
        let tail = r#"0 0 "" "" 0 0 0 0"#;
        let said = |head: &str| {
            let words = format!("{head} 40 9 12 0 1 0 400 7 4 100 60 0 1700000000000000 2 17 {tail}");
            reply(&names(), &asked(), &value(&words)).expect("well formed").reply
        };
        let fresh = Stamp { incarnation: 6, epoch: 1 };
        assert_eq!(said("r 6 1").verdict, Verdict::Resync(fresh));
        assert_eq!(said("r 6 1").stamp, asked().stamp);
        assert_eq!(said("s 5 2").verdict, Verdict::Stale);
    }

    #[test]
    fn a_recall_of_an_api_of_others_asks_for_nothing() {
        let answer = read(r#"6 2 other other 5 0 0 0"#).expect("well formed").reply;
        assert_eq!(answer.recall, Some(Recall { number: 6, units: 0, api: None }));
        assert_eq!(answer.kept, None);
    }

    /// Each is refused, with the field that is wrong.
    #[test]
    fn malformed_replies_are_named() {
        let tail = r#"0 0 "" "" 0 0 0 0"#;
        let cases = [
            (format!("{HEAD} 0 0"), "the reply ends before field 21 (`its api`)"),
            (format!("{HEAD} {tail} 1"), "1 fields too many"),
            (format!("x{} {tail}", &HEAD[1..]), "`a`, `s` or `r`"),
            (format!("{} {tail}", HEAD.replace(" 40 ", " 41 ")), "field 4 (`number`) of the reply is `41`"),
            (format!("{} {tail}", HEAD.replace(" 12 ", " -1 ")), "field 6 (`target`) of the reply is `-1`"),
            (
                format!("{} {tail}", HEAD.replace(" 12 0 ", " 12 2 ")),
                "field 7 (`scarce`) of the reply is `2`",
            ),
            (format!(r#"{HEAD} 0 0 "" "" 0 9 0 0"#), "`count of lent`"),
            (
                format!(r#"{HEAD} 0 0 "" "" 0 1 8 p:n-9 3 "" 0 0 0"#),
                "lends of `p:n-9`, which this gate does not know",
            ),
            (format!(r#"{HEAD} 0 0 "" "" 0 1 8 p:n-1 3 "x" 0 0 0"#), "(`waiter`) of the reply is `x`"),
            (format!(r#"{HEAD} 0 0 "" "" 0 1 8 p:n-1 3 "" 4 0 0"#), "(`flags`) of the reply is `4`"),
            (format!(r#"{HEAD} 0 0 "" "" 0 2 8 t 3 "" 0 10 t 1 "" 0 0 0"#), "not the one after 8"),
        ];
        for (words, expected) in cases {
            let error = reply(&names(), &asked(), &value(&words)).expect_err(&words);
            assert!(error.contains(expected), "{words}: {error}");
        }
        let error = reply(&names(), &asked(), &Value::Okay).expect_err("no array");
        assert_eq!(error, "the reply is no array but ok");
        let odd = Value::Array(vec![Value::Nil]);
        let error = reply(&names(), &asked(), &odd).expect_err("no field");
        assert_eq!(error, "field 1 of the reply is nil, neither string nor integer");
    }

    #[test]
    fn pushes() {
        let said = "18446744073709551615\n2\n6\n2\n\nn-2\n-30\n1\n1\n8\np:n-1\n3\n77\n1";
        let heard = push(&names(), said).expect("well formed").expect("all known");
        assert_eq!(heard.stamp, Stamp { incarnation: u64::MAX, epoch: 2 });
        assert_eq!(heard.recall, Some(Recall { number: 6, units: 2, api: None }));
        assert_eq!(heard.kept, Some(Kept { pod: PodId(1), age_us: -30 }));
        let lent = Lent {
            number: 8,
            account: Account::Pod(PodId(0)),
            units: 3,
            waiter: Some(Ticket(77)),
            special: true,
            trickle: false,
        };
        assert_eq!(heard.lent, [lent]);
        let quiet = push(&names(), "1\n2\n0\n0\n\n\n0\n0\n0").expect("well formed").expect("all known");
        assert_eq!((quiet.recall, quiet.kept, quiet.scarce, quiet.lent.len()), (None, None, false, 0));
        assert!(heard.scarce);
        assert_eq!(push(&names(), &said.replace("p:n-1", "p:n-9")), Ok(None));
        assert!(push(&names(), "1\n2").is_err_and(|why| why.contains("the push ends before field 3")));
    }
}
