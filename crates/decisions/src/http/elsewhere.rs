//! Calls for leases of other gates: passed on while that gate lives, adopted when it is gone.
//!
//! The page `docs/decisions.md` says what callers see. A call is passed on once; `x-sluicegate-passed` says what for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};

use super::Call;
use super::input::LeaseRequest;
use super::problem::{come_again, problem};
use super::reply::Reply;
use crate::book::{Adoption, Ended};
use crate::names::Id;
use crate::peers::{Answer, Ask, Passing, Peer};
use crate::server::Shared;

/// A gate that is gone is looked at so often while leases of it wait to be counted here.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// And not more often than that.
const LOOK_LEAST: Duration = Duration::from_millis(5);
/// A return whose gate does not answer is tried again so often, and so many times: longer than any ttl.
const AGAIN: (Duration, u32) = (Duration::from_millis(500), 700);
/// Returns that are tried again at one time; a gate that does not answer must not fill this one's memory.
pub(crate) const AGAIN_MAX: usize = 10_000;

/// A `PUT` for a lease of another gate.
pub(super) enum Renewal {
    Answered(Response<Reply>),
    /// It is adopted here: renew it by its whole id.
    Here,
}

/// Whether an ask belongs to another gate: by its id, its former lease, its key. Then that one's answer.
pub(super) async fn ask(
    shared: &Arc<Shared>,
    call: &Call,
    request: &LeaseRequest,
) -> Option<Response<Reply>> {
    if !shared.peering.shares() || Ask::of(&call.parts.headers).is_some() {
        return None;
    }
    let named = [&request.id, &request.after].into_iter().flatten();
    let gates = named.filter_map(|text| Id::parse(text).ok()?.gate);
    for gate in gates.filter(|gate| *gate != shared.peering.own) {
        if let Peer::At(url) = shared.peering.find(gate, false).await {
            return passed(shared, &url, call, Ask::Own).await;
        }
    }
    let key = call.parts.headers.get("idempotency-key").filter(|_| request.id.is_none())?;
    let others = shared.peering.others().await;
    let home = shared.peering.home(key.to_str().ok()?, &others)?;
    // Without its home a key is as good as its gate.
    passed(shared, home, call, Ask::Own).await
}

async fn passed(shared: &Shared, url: &str, call: &Call, ask: Ask) -> Option<Response<Reply>> {
    let answer = shared.peering.send(url, &passing(call), ask, true).await.ok()?;
    if answer.status() == StatusCode::MISDIRECTED_REQUEST.as_u16() {
        return None;
    }
    shared.counters.passed_on.one();
    Some(reply(answer))
}

pub(super) async fn renew(shared: &Arc<Shared>, call: &Call, id: &Id<'_>) -> Renewal {
    let asked = Ask::of(&call.parts.headers);
    if asked == Some(Ask::Own) {
        return Renewal::Answered(misdirected());
    }
    let has = shared.book.has(id.text);
    if asked == Some(Ask::Adopted) {
        return if has { Renewal::Here } else { Renewal::Answered(no_such_lease()) };
    }
    let gate = id.gate.expect("an id without a gate is this gate's own");
    let mut found = shared.peering.find(gate, false).await;
    if let Peer::At(url) = &found {
        if let Some(answer) = own_answer(shared, url, call).await {
            // What its own gate knows no more was written off there while it was not heard.
            if answer.status() == StatusCode::NOT_FOUND.as_u16() && has {
                return Renewal::Here;
            }
            if has {
                shared.book.end(id.text, Ended::Done);
            }
            return Renewal::Answered(reply(answer));
        }
        found = shared.peering.find(gate, true).await;
    }
    match found {
        _ if has => Renewal::Here,
        Peer::At(_) | Peer::Hidden => Renewal::Answered(silent(gate)),
        Peer::Unsure(why) => {
            Renewal::Answered(come_again("ledger_unavailable", "The lease's gate is not known", &why))
        }
        Peer::Unknown => adopted_elsewhere(shared, call, id, asked)
            .await
            .unwrap_or_else(|| Renewal::Answered(no_such_lease())),
        Peer::Gone(back) => {
            if let Some(answer) = adopted_elsewhere(shared, call, id, asked).await {
                return answer;
            }
            match adopt(shared, id, back).await {
                true => Renewal::Here,
                false => Renewal::Answered(no_such_lease()),
            }
        }
    }
}

/// The answer of the lease's own gate; `None`: that one is not there.
async fn own_answer(shared: &Shared, url: &str, call: &Call) -> Option<Answer> {
    let answer = shared.peering.send(url, &passing(call), Ask::Own, false).await.ok()?;
    shared.counters.passed_on.one();
    (answer.status() != StatusCode::MISDIRECTED_REQUEST.as_u16()).then_some(answer)
}

/// The answer of the gate that adopts this lease, or has; `None`: that is this one.
async fn adopted_elsewhere(shared: &Shared, call: &Call, id: &Id<'_>, asked: Option<Ask>) -> Option<Renewal> {
    let others = shared.peering.others().await;
    // Two calls at two gates meet at one.
    if asked.is_none()
        && let Some(heir) = shared.peering.home(id.text, &others)
        && let Ok(answer) = shared.peering.send(heir, &passing(call), Ask::Adopt, false).await
    {
        shared.counters.passed_on.one();
        return Some(Renewal::Answered(reply(answer)));
    }
    let passing = passing(call);
    for (_, url) in &others {
        // Gates that came meanwhile may have made another one the heir.
        if let Ok(answer) = shared.peering.send(url, &passing, Ask::Adopted, false).await
            && answer.status() == StatusCode::OK.as_u16()
        {
            return Some(Renewal::Answered(reply(answer)));
        }
    }
    None
}

/// Takes a lease over. Its units count at its old gate until the ledger gives them back, and here from some time before that:
/// at no moment do they count nowhere, or somebody else would be given them.
async fn adopt(shared: &Arc<Shared>, id: &Id<'_>, back: Duration) -> bool {
    let Some(tag) = id.tag else { return false };
    let rules = shared.directory.rules();
    let (Some(api), Some(pod)) = (rules.api_short(tag.api), rules.pod_short(tag.pod)) else { return false };
    let gate = id.gate.expect("an id without a gate is this gate's own");
    let adoption = Adoption {
        gate: gate.to_owned(),
        api: api.id,
        pod: Arc::clone(pod),
        weight: tag.weight,
        hold: api.max_hold,
    };
    let Some(is_first) = shared.book.adopt(id.text, adoption) else { return false };
    if is_first {
        tokio::spawn(count_in_time(shared.clone(), gate.to_owned(), back));
    }
    if back <= shared.peering.lead() {
        // They come back soon. The caller may rely on it only if the ledger heard of it in time.
        shared.book.count_adopted(gate);
        shared.peering.heard().await;
        if shared.peering.find(gate, true).await == Peer::Unknown {
            shared.book.end(id.text, Ended::Done);
            return false;
        }
    }
    shared.counters.adopted.one();
    true
}

/// Counts what was adopted of a gate that is gone, before its units come back; and sees to the end of that time.
async fn count_in_time(shared: Arc<Shared>, gate: String, mut back: Duration) {
    let lead = shared.peering.lead();
    loop {
        let rest = back.saturating_sub(lead);
        if rest.is_zero() {
            shared.book.count_adopted(&gate);
        }
        let pause = if rest.is_zero() { LOOK_EVERY } else { rest.clamp(LOOK_LEAST, LOOK_EVERY) };
        tokio::time::sleep(pause).await;
        match shared.peering.find(&gate, true).await {
            Peer::Gone(left) => back = left,
            Peer::Unknown => return shared.book.settle_adopted(&gate),
            // It was only paused, and has come back with all its leases: calls go to it again.
            Peer::At(_) | Peer::Hidden => return shared.book.forget_adopted(&gate),
            // Nothing comes back while the ledger does not answer.
            Peer::Unsure(_) => {}
        }
    }
}

/// Gives a lease of another gate back, now or as soon as that gate answers.
pub(super) async fn give_back(
    shared: &Arc<Shared>,
    passing: Passing,
    asked: Option<Ask>,
    text: &str,
    ended: Ended,
) {
    let Ok(id) = Id::parse(text) else { return };
    if shared.book.end(id.text, ended) || asked == Some(Ask::Adopted) {
        return;
    }
    let gate = id.gate.expect("an id without a gate is this gate's own");
    match told(shared, &passing, gate).await {
        Told::Done => {}
        Told::Gone => {
            shared.book.remember(id.text);
            let others = shared.peering.others().await;
            if asked.is_none()
                && let Some(heir) = shared.peering.home(id.text, &others)
                && shared.peering.send(heir, &passing, Ask::Adopt, false).await.is_ok()
            {
                return;
            }
            for (_, url) in &others {
                // One that does not answer loses it by its hold.
                drop(shared.peering.send(url, &passing, Ask::Adopted, false).await);
            }
        }
        Told::NotYet => tell_later(shared, passing, gate.to_owned()),
    }
}

enum Told {
    Done,
    /// The gate is gone: there is nobody to tell.
    Gone,
    NotYet,
}

async fn told(shared: &Shared, passing: &Passing, gate: &str) -> Told {
    let url = match shared.peering.find(gate, false).await {
        Peer::At(url) => url,
        Peer::Hidden | Peer::Unsure(_) => return Told::NotYet,
        Peer::Gone(_) | Peer::Unknown => return Told::Gone,
    };
    if let Ok(answer) = shared.peering.send(&url, passing, Ask::Own, false).await
        && answer.status() != StatusCode::MISDIRECTED_REQUEST.as_u16()
        && answer.status() < 500
    {
        shared.counters.passed_on.one();
        return Told::Done;
    }
    match shared.peering.find(gate, true).await {
        Peer::Gone(_) | Peer::Unknown => Told::Gone,
        Peer::At(_) | Peer::Hidden | Peer::Unsure(_) => Told::NotYet,
    }
}

/// The caller is done; its gate is told when it answers, or is gone.
fn tell_later(shared: &Arc<Shared>, passing: Passing, gate: String) {
    // Where too many wait already, this one's lease ends by its hold.
    let Ok(place) = shared.later.clone().try_acquire_owned() else { return };
    let shared = shared.clone();
    tokio::spawn(async move {
        for _ in 0..AGAIN.1 {
            tokio::time::sleep(AGAIN.0).await;
            if !matches!(told(&shared, &passing, &gate).await, Told::NotYet) {
                break;
            }
        }
        drop(place);
    });
}

/// A name without a gate that is not this gate's: the ask that it shall cancel may be at another.
pub(super) async fn cancel_elsewhere(shared: &Shared, call: &Call) {
    if Ask::of(&call.parts.headers).is_some() {
        return;
    }
    let passing = passing(call);
    for (_, url) in shared.peering.others().await {
        drop(shared.peering.send(&url, &passing, Ask::Own, false).await);
    }
}

/// A call as it came.
pub(super) fn passing(call: &Call) -> Passing {
    let target = call.parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    Passing {
        method: call.parts.method.clone(),
        target,
        headers: call.parts.headers.clone(),
        body: call.body.clone(),
    }
}

/// The return of one lease out of a batch.
pub(super) fn return_of(call: &Call, id: &str) -> Passing {
    let target = format!("/v1/leases/{id}");
    Passing { method: Method::DELETE, target, headers: call.parts.headers.clone(), body: Bytes::new() }
}

fn reply(answer: Answer) -> Response<Reply> {
    match answer {
        Answer::Whole(answer) => {
            answer.map(|body| if body.is_empty() { Reply::empty() } else { Reply::full(body) })
        }
        Answer::Open(answer, driver) => answer.map(|body| Reply::Passed(body, driver)),
    }
}

pub(super) fn misdirected() -> Response<Reply> {
    let detail = "The gate of this id was here once; another one is now.";
    problem(StatusCode::MISDIRECTED_REQUEST, "other_gate", "This is another gate", detail)
}

fn silent(gate: &str) -> Response<Reply> {
    let detail = format!("Gate `{gate}` holds the lease and does not answer; the ledger counts it as alive.");
    come_again("gate_silent", "The lease's gate does not answer", &detail)
}

pub(super) fn no_such_lease() -> Response<Reply> {
    let detail = "It was given back, or not renewed in time, or is still waited for, or never was; or its gate is gone.";
    problem(StatusCode::NOT_FOUND, "no_such_lease", "There is no such lease", detail)
}
