//! Does Envoy keep its streams to the end of their requests?
//!
//! It does with `response_trailer_mode: SEND`. With the plain setting (response headers and trailers skipped) it ends a stream as
//! soon as it has the answer to the request headers, and with response headers alone at the answer to those: the lease would hold
//! nothing. No message tells the trailer mode. So each admission overrides the modes (`mode_override`), which
//! Envoy obeys where `allow_mode_override: true` is set: that mends the setting, and can be seen to be obeyed, because where
//! it is in doubt an admission asks that the response headers be *not* sent.
//!
//! Where it is not obeyed, only the life of streams tells: one that lived long after our last word proves that they are
//! kept; if all end within milliseconds, either every pod is that quick or nothing is kept. The operator is told which
//! setting makes it certain.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A stream that lived on so long after our last word is kept: Envoy's own work takes some milliseconds, on a busy
/// machine some ten.
const LONG: Duration = Duration::from_millis(250);
/// One that ended so soon after it may not have been kept.
const BRIEF: Duration = Duration::from_millis(20);
/// So many brief ones, nearly without another, and it is said.
const BRIEF_MANY: u32 = 32;
/// It is in doubt after so many, and one admission then asks for the opposite.
const BRIEF_SOME: u32 = 16;
/// Evidence is gathered anew after so many streams: the setting may have been changed.
const LOOK_AGAIN: u64 = 4096;
/// After a verdict against an Envoy the evidence is gathered anew after so long: it may have been mended.
const JUDGE_AGAIN: Duration = Duration::from_secs(10);

/// What an admission asks of Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Response headers and trailers.
    Headers,
    /// Trailers only, to see whether it obeys.
    NoHeaders,
}

/// What is known of an Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not enough was seen.
    Unknown,
    /// It keeps its streams.
    Keeps,
    /// It ends them at once, as far as anybody can tell.
    EndsAtOnce,
}

/// How one stream lived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) wish: Wish,
    /// Its response headers came.
    pub(crate) headers: bool,
    /// Time between our last word and its end.
    pub(crate) after: Duration,
}

/// The streams of one connection: one Envoy, one worker thread of it.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    begun: u64,
    /// Response headers came where they were wished for.
    headers: bool,
    /// They did not come where they were not.
    quiet: bool,
    /// They came all the same: the wish is not obeyed.
    loud: bool,
    /// A stream lived long.
    long: bool,
    brief: u32,
    other: u32,
    /// Brief streams in a row that wished for headers in vain: a setting that was changed meanwhile.
    in_vain: u32,
    /// Since when the verdict stands against it.
    judged: Option<Instant>,
}

impl Conduct {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Plain counters: a panic elsewhere cannot leave them half changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An admission goes out.
    pub(crate) fn begin(&self) -> Wish {
        let mut seen = self.seen();
        seen.begun += 1;
        if seen.begun.is_multiple_of(LOOK_AGAIN) {
            (seen.long, seen.quiet, seen.brief, seen.other) = (false, false, 0, 0);
        }
        let in_doubt = seen.brief >= BRIEF_SOME && !seen.long && !seen.quiet && !seen.loud;
        if in_doubt { Wish::NoHeaders } else { Wish::Headers }
    }

    /// Response headers came.
    pub(crate) fn headers_came(&self, wish: Wish) {
        let mut seen = self.seen();
        match wish {
            Wish::Headers => seen.headers = true,
            Wish::NoHeaders => seen.loud = true,
        }
    }

    /// Whether response headers come when they are wished for, so that their absence says something.
    pub(crate) fn sends_headers(&self) -> bool {
        self.seen().headers
    }

    /// An admitted stream ended. True if the verdict is now against this Envoy, and was not before.
    pub(crate) fn ended(&self, life: Life, now: Instant) -> bool {
        let mut seen = self.seen();
        seen.note(life);
        let against = seen.verdict() == Verdict::EndsAtOnce;
        let newly = against && seen.judged.is_none();
        if newly {
            seen.judged = Some(now);
        }
        newly
    }

    /// What is known at `now`. A verdict against it ends after ten seconds, and is then found anew or not.
    pub(crate) fn verdict(&self, now: Instant) -> Verdict {
        let mut seen = self.seen();
        if seen.judged.is_some_and(|at| now.duration_since(at) >= JUDGE_AGAIN) {
            *seen = Seen::default();
        }
        seen.verdict()
    }
}

impl Seen {
    fn note(&mut self, life: Life) {
        let brief = life.after < BRIEF;
        if life.wish == Wish::NoHeaders && !life.headers {
            self.quiet = true;
        }
        self.long |= life.after >= LONG;
        if brief {
            self.brief = self.brief.saturating_add(1);
        } else {
            self.other = self.other.saturating_add(1);
        }
        let in_vain = brief && life.wish == Wish::Headers && !life.headers;
        self.in_vain = if in_vain { self.in_vain + 1 } else { 0 };
        if self.in_vain >= BRIEF_MANY {
            *self = Seen { begun: self.begun, brief: self.in_vain, judged: self.judged, ..Seen::default() };
        }
    }

    fn verdict(&self) -> Verdict {
        let obeys = self.headers && self.quiet && !self.loud;
        if obeys || self.long {
            return Verdict::Keeps;
        }
        if self.brief >= BRIEF_MANY && self.brief / 20 >= self.other {
            return Verdict::EndsAtOnce;
        }
        Verdict::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Envoy: what it does with a wish, and how long its streams live after our last word.
    fn live(conduct: &Conduct, streams: u32, sends: impl Fn(Wish) -> bool, after_ms: u64) -> Verdict {
        let now = Instant::now();
        for _ in 0..streams {
            let wish = conduct.begin();
            let headers = sends(wish);
            if headers {
                conduct.headers_came(wish);
            }
            conduct.ended(Life { wish, headers, after: Duration::from_millis(after_ms) }, now);
        }
        conduct.verdict(now)
    }

    fn obeys(wish: Wish) -> bool {
        wish == Wish::Headers
    }

    #[test]
    fn one_that_obeys_keeps_its_streams_however_quick_the_pods_are() {
        let conduct = Conduct::default();
        assert_eq!(live(&conduct, BRIEF_SOME, obeys, 0), Verdict::Unknown);
        assert_eq!(live(&conduct, 1, obeys, 0), Verdict::Keeps);
        for _ in 0..10 {
            assert_ne!(live(&conduct, 1001, obeys, 0), Verdict::EndsAtOnce);
        }
    }

    #[test]
    fn the_opposite_is_wished_for_only_in_doubt() {
        let conduct = Conduct::default();
        live(&conduct, 1, obeys, 300);
        let wishes: Vec<Wish> = (0..4000).map(|_| conduct.begin()).collect();
        assert!(wishes.iter().all(|wish| *wish == Wish::Headers));
        let quick = Conduct::default();
        live(&quick, 10 * BRIEF_MANY, obeys, 0);
        let wishes: Vec<Wish> = (0..1000).map(|_| quick.begin()).collect();
        assert!(wishes.iter().all(|wish| *wish == Wish::Headers), "once is enough");
    }

    #[test]
    fn the_plain_setting_is_found_and_so_is_that_of_headers_alone() {
        for sends in [(|_| false) as fn(Wish) -> bool, |_| true] {
            let conduct = Conduct::default();
            assert_eq!(live(&conduct, BRIEF_MANY - 1, sends, 1), Verdict::Unknown);
            assert_eq!(live(&conduct, 1, sends, 1), Verdict::EndsAtOnce);
        }
    }

    #[test]
    fn one_long_life_proves_that_streams_are_kept() {
        let conduct = Conduct::default();
        assert_eq!(live(&conduct, 1, |_| false, 300), Verdict::Keeps);
        assert_eq!(live(&conduct, 20, |_| false, 1), Verdict::Keeps);
    }

    #[test]
    fn clients_that_leave_are_no_evidence() {
        let conduct = Conduct::default();
        assert_eq!(live(&conduct, 200, |_| false, 60), Verdict::Unknown);
    }

    #[test]
    fn a_setting_that_gets_worse_is_found_and_one_that_is_mended_too() {
        let conduct = Conduct::default();
        assert_eq!(live(&conduct, 100, obeys, 300), Verdict::Keeps);
        assert_eq!(live(&conduct, 2 * BRIEF_MANY, |_| false, 1), Verdict::EndsAtOnce);
        assert_eq!(conduct.verdict(Instant::now() + JUDGE_AGAIN), Verdict::Unknown);
        assert_eq!(live(&conduct, BRIEF_SOME + 1, obeys, 1), Verdict::Keeps);
    }

    #[test]
    fn a_verdict_is_told_once() {
        let conduct = Conduct::default();
        let now = Instant::now();
        let life = Life { wish: Wish::Headers, headers: false, after: Duration::ZERO };
        let told: Vec<bool> = (0..100).map(|_| conduct.ended(life, now)).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
    }
}
