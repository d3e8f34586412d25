//! The link thread: carries a member's words to the ledger and back, and does callers' errands between.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sluicegate_core::shared::{GateId, Reply, Report, Verdict};
use sluicegate_core::time::Micros;

use crate::engine::Engine;
use crate::gate::{Shared, State};
use crate::link::{Document, Exchanged, Ledger, LinkError, Names, Stored};
use crate::shared::{Job, LedgerView, Post};

/// Time before a second try, and what it grows to while tries fail. Each is spread by half, so that the gates of a
/// pool do not come back all at once.
const RETRY_US: (u64, u64) = (50_000, 2_000_000);
/// The longest sleep; no platform's clock overflows by it.
const SLEEP_MAX_US: u64 = 3_600_000_000;
/// Registered pods of a document that the ledger lost may be so late with their renewal, milliseconds.
const PUT_BACK_MS: u64 = 30_000;

/// The thread's own.
pub(crate) struct Courier {
    shared: Arc<Shared>,
    ledger: Box<dyn Ledger>,
    id: GateId,
    connected: bool,
    /// The last failure was said; the next of a row is not.
    said: bool,
    connect: Again,
    listen: Again,
    /// The last document read or stored.
    kept: Document,
    /// The version that was looked at last, obeyed or not.
    looked: u64,
    /// The version obeyed.
    obeyed: u64,
}

/// When to try once more.
struct Again {
    at: Micros,
    delay_us: u64,
}

impl Again {
    fn at_once() -> Again {
        Again { at: Micros(0), delay_us: RETRY_US.0 }
    }

    fn failed(&mut self, now: Micros) {
        self.at = now + (self.delay_us / 2 + fastrand::u64(0..=self.delay_us));
        self.delay_us = (self.delay_us * 2).min(RETRY_US.1);
    }
}

enum Work {
    Close,
    Connect,
    Listen,
    Job(Job),
    Reread,
    Exchange(Box<Report>, Arc<Names>),
}

impl Courier {
    pub(crate) fn new(shared: Arc<Shared>, id: GateId, ledger: Box<dyn Ledger>) -> Courier {
        Courier {
            shared,
            ledger,
            id,
            connected: false,
            said: false,
            connect: Again::at_once(),
            listen: Again::at_once(),
            kept: Document::default(),
            looked: 0,
            obeyed: 0,
        }
    }

    /// Until the gate is closed.
    pub(crate) fn run(mut self) {
        loop {
            let outcome = match self.next_work() {
                Work::Close => return,
                Work::Connect => self.connect(),
                Work::Listen => {
                    self.listen();
                    Ok(())
                }
                Work::Job(job) => self.errand(job),
                Work::Reread => self.read_document(),
                Work::Exchange(report, names) => self.exchange(&report, &names),
            };
            if let Err(error) = outcome {
                self.lost(&error);
            }
        }
    }

    fn post(&self) -> &Post {
        self.shared.post.as_ref().expect("only a shared gate has a link thread")
    }

    /// Sleeps until there is something to do.
    fn next_work(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let (mut state, mut now) = shared.enter();
        loop {
            if state.closed {
                return Work::Close;
            }
            let (ear_lost, left) = {
                let mut desk = self.post().desk();
                if let Some(job) = desk.jobs.pop_front() {
                    return Work::Job(job);
                }
                if self.connected && std::mem::take(&mut desk.reread) {
                    return Work::Reread;
                }
                (desk.ear_lost, desk.left)
            };
            let mut wake = Micros::NEVER;
            if !left && !self.connected {
                if now >= self.connect.at {
                    return Work::Connect;
                }
                wake = self.connect.at;
            } else if !left {
                let State { core, out, .. } = &mut *state;
                let Engine::Shared(member) = core else { unreachable!("a shared gate has a member") };
                let report = member.poll(now, out);
                wake = member.next_wake();
                if !state.out.is_empty() {
                    shared.finish(state);
                    state = shared.lock();
                    if report.is_none() {
                        now = shared.clock.now();
                        continue;
                    }
                }
                if let Some(report) = report {
                    return Work::Exchange(Box::new(report), Arc::clone(&self.post().desk().names));
                }
                if ear_lost && now >= self.listen.at {
                    return Work::Listen;
                }
                if ear_lost {
                    wake = wake.min(self.listen.at);
                }
            }
            state.link_armed = wake;
            // At least a moment, so that a time that has just passed does not make a busy loop.
            let sleep = Duration::from_micros(wake.since(now).clamp(20, SLEEP_MAX_US));
            let slept = self.post().bell.wait_timeout(state, sleep);
            state = slept.unwrap_or_else(PoisonError::into_inner).0;
            state.link_armed = Micros(0);
            now = shared.clock.now();
        }
    }

    fn connect(&mut self) -> Result<(), LinkError> {
        let server = self.ledger.connect(self.id)?;
        self.connected = true;
        // Another server, perhaps: an ear of the old connection may hear nothing for ever.
        self.listen = Again::at_once();
        {
            let mut desk = self.post().desk();
            desk.ear_life += 1;
            desk.ear = None;
            desk.ear_lost = true;
        }
        let mut state = self.shared.lock();
        if let Engine::Shared(member) = &mut state.core {
            member.connected(server);
        }
        Ok(())
    }

    /// Without an ear the gate goes on; its waiters ask more often than they would have to.
    fn listen(&mut self) {
        match self.ledger.listen(self.id) {
            Ok(ear) => {
                let mut desk = self.post().desk();
                desk.ear_life += 1;
                desk.ear = Some(ear);
                desk.ear_lost = false;
                self.post().ear_bell.notify_one();
                drop(desk);
                self.listen = Again::at_once();
            }
            Err(error) => {
                if self.listen.delay_us == RETRY_US.0 {
                    tracing::warn!(%error, "pushes cannot be heard; trying again");
                }
                self.listen.failed(self.shared.clock.now());
            }
        }
    }

    /// The connection counts as gone.
    fn lost(&mut self, error: &LinkError) {
        self.connected = false;
        self.connect.failed(self.shared.clock.now());
        let text = error.to_string();
        let mut desk = self.post().desk();
        desk.view.up = false;
        let news = desk.view.last_error.as_ref() != Some(&text);
        desk.view.last_error = Some(text);
        // Those who look wait for nothing.
        self.post().told.notify_all();
        drop(desk);
        self.shared.cut_off();
        if news || !self.said {
            self.said = true;
            tracing::warn!(%error, "trying again");
        }
    }

    fn exchange(&mut self, report: &Report, names: &Names) -> Result<(), LinkError> {
        let begin = self.shared.clock.now();
        let exchanged = self.ledger.exchange(names, report)?;
        let rtt_us = self.shared.clock.now().since(begin);
        self.connect = Again::at_once();
        if std::mem::take(&mut self.said) {
            tracing::info!("the ledger answers again");
        }
        let reply = &exchanged.reply;
        self.note(names, &exchanged, rtt_us);
        let (mut state, now) = self.shared.enter();
        state.cut_off = false;
        let State { core, out, .. } = &mut *state;
        let Engine::Shared(member) = core else { unreachable!("a shared gate has a member") };
        member.on_reply(now, reply, out);
        let left = member.has_left();
        self.shared.finish(state);
        if left {
            self.post().desk().left = true;
            self.post().told.notify_all();
        }
        if reply.version != self.looked { self.read_document() } else { Ok(()) }
    }

    fn note(&self, names: &Names, exchanged: &Exchanged, rtt_us: u64) {
        let Exchanged { reply, pushes, touched } = exchanged;
        let mut desk = self.post().desk();
        let view = &mut desk.view;
        view.up = true;
        view.exchanges += 1;
        view.pushes_made += u64::from(*pushes);
        view.touched += u64::from(*touched);
        view.count_rtt(rtt_us);
        learn(view, names, reply);
    }

    /// Reads the document, has it obeyed, and puts it back if the ledger lost it.
    fn read_document(&mut self) -> Result<(), LinkError> {
        if !self.is_heard() {
            return Ok(());
        }
        let found = self.ledger.document()?;
        let document = if found.version < self.kept.version { self.put_back(found)? } else { found };
        self.obey(document);
        Ok(())
    }

    /// Whether anybody obeys documents here.
    fn is_heard(&self) -> bool {
        self.post().on_document.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn put_back(&mut self, found: Document) -> Result<Document, LinkError> {
        let mut document = self.kept.clone();
        document.now_ms = found.now_ms;
        for pod in document.pods.values_mut() {
            pod.until_ms = pod.until_ms.max(found.now_ms + PUT_BACK_MS);
        }
        document.pods.extend(found.pods);
        match self.ledger.store(found.version, &document)? {
            Stored::Stored(version) => {
                tracing::warn!(version, "the ledger had lost the pool's changes; they are put back");
                Ok(Document { version, ..document })
            }
            // Another gate was faster.
            Stored::Conflict(_) => self.ledger.document(),
        }
    }

    fn obey(&mut self, document: Document) {
        self.looked = document.version;
        let obeyed = {
            let mut obey = self.post().on_document.lock().unwrap_or_else(PoisonError::into_inner);
            obey.as_mut().map(|obey| obey(&document))
        };
        let Some(obeyed) = obeyed else { return };
        let error = match obeyed {
            Ok(()) => {
                self.obeyed = document.version;
                None
            }
            Err(why) => {
                tracing::error!(version = document.version, why, "the pool's changes are not obeyed here");
                Some(why)
            }
        };
        self.kept = document;
        {
            let mut desk = self.post().desk();
            desk.view.version = self.obeyed;
            desk.view.document_error = error;
        }
        let mut state = self.shared.lock();
        if let Engine::Shared(member) = &mut state.core {
            // Soon, for who made the change waits for this gate's word.
            member.set_version(self.obeyed);
        }
    }

    /// An errand's own failure is told to who wanted it, and ends the connection as any other.
    fn errand(&mut self, job: Job) -> Result<(), LinkError> {
        if !self.connected {
            let last = self.post().desk().view.last_error.clone();
            let kind = crate::link::LinkErrorKind::Unreachable;
            let error = LinkError::new(kind, last.unwrap_or_else(|| "not connected yet".to_owned()));
            self.answer_failed(job, &error);
            return Ok(());
        }
        match job {
            Job::Document(answer) => {
                let found = self.ledger.document();
                let found = match found {
                    Ok(found) if found.version < self.kept.version => self.put_back(found),
                    other => other,
                };
                tell(&answer, &found);
                found.map(|_| ())
            }
            Job::Store(expected, document, answer) => {
                let stored = self.ledger.store(expected, &document);
                if let Ok(Stored::Stored(version)) = stored {
                    self.obey(Document { version, ..*document });
                }
                tell(&answer, &stored);
                stored.map(|_| ())
            }
            Job::Gone(answer) => {
                let gone = self.ledger.gone();
                tell(&answer, &gone);
                gone.map(|_| ())
            }
            Job::Gates(answer) => {
                let gates = self.ledger.gates();
                self.post().gates_came(self.shared.clock.now(), gates.as_ref());
                if let Some(answer) = answer {
                    tell(&answer, &gates);
                }
                gates.map(|_| ())
            }
        }
    }

    fn answer_failed(&self, job: Job, error: &LinkError) {
        match job {
            Job::Document(answer) => tell(&answer, &Err(error.clone())),
            Job::Store(_, _, answer) => tell(&answer, &Err(error.clone())),
            Job::Gone(answer) => tell(&answer, &Err(error.clone())),
            Job::Gates(answer) => {
                self.post().gates_came(self.shared.clock.now(), Err(error));
                if let Some(answer) = answer {
                    tell(&answer, &Err(error.clone()));
                }
            }
        }
    }
}

/// Who asked may have lost patience meanwhile.
fn tell<T: Clone>(answer: &std::sync::mpsc::SyncSender<Result<T, LinkError>>, what: &Result<T, LinkError>) {
    let _ = answer.try_send(what.clone());
}

/// What a reply says of the pool.
fn learn(view: &mut LedgerView, names: &Names, reply: &Reply) {
    view.recovering = reply.recovering;
    view.gates_known = reply.gates;
    view.epoch = match reply.verdict {
        Verdict::Resync(stamp) => stamp.epoch,
        Verdict::Applied | Verdict::Stale => reply.stamp.epoch,
    };
    view.recall = reply.recall.map(|recall| {
        let api = recall.api.and_then(|api| names.apis.get(api.index()).cloned());
        (recall.units, api)
    });
    view.claim = reply.kept.and_then(|kept| names.pods.get(kept.pod.index()).cloned());
}
