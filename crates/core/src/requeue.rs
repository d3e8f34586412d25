//! Asks that go through the queue a second time, and waiters that new rules leave without hope.

use crate::exchange::{Change, Ending, Reply, Request};
use crate::gate::{Answer, Gate, Lease, Output, reason_of};
use crate::ids::{LeaseId, Ticket};
use crate::policy::Mode;
use crate::refusal::Reason;
use crate::time::Micros;

impl Gate {
    /// The request did not run: the pod's own lock refused it (`PodRefused`) or it never reached the pod
    /// (`NeverStarted`). It goes through admission again with its old arrival, so with its old rank, for
    /// what is left of its wait. `None` if the lease had ended before.
    ///
    /// Such a request was counted as admitted when it got its first lease; it is not counted again.
    ///
    /// The answer may be [`Answer::Waits`] with an [`Output`] of that ticket in the same call: among other
    /// waiters it is served in its turn.
    pub fn retry(
        &mut self,
        now: Micros,
        lease: LeaseId,
        ending: Ending,
        out: &mut Vec<Output>,
    ) -> Option<Answer> {
        let now = self.pass(now, out);
        let Lease { request, holding } = self.leases.remove(lease.0)?;
        let request = Request { again: true, ..request };
        self.ledger.exchange(now, Change::Return(holding, ending), &mut self.grants);
        let heavy = request.weight > self.most(request.api);
        let answer = if self.mode != Mode::Enforce || heavy || self.ledger.line.is_empty() {
            self.admit(now, request, out)
        } else {
            self.queue_again(now, request, out)
        };
        self.ledger.exchange(now, Change::Tick, &mut self.grants);
        self.hand_over(now, out);
        Some(answer)
    }

    /// It takes its old place among the others and all are served in order: what it gave back may let a better
    /// rank in, so it must not simply try first.
    fn queue_again(&mut self, now: Micros, request: Request, out: &mut Vec<Output>) -> Answer {
        let deadline = request.arrival + request.wait_us;
        let reply = self.ledger.exchange(now, Change::Wait(request), &mut self.grants);
        let Reply::Waits(ticket) = reply else { unreachable!("`Wait` answers a ticket") };
        self.deadlines.insert((deadline, ticket));
        self.hand_over(now, out);
        let otherwise = if deadline <= now { self.reason_at_end(request.wait_us) } else { Reason::NoRoom };
        if deadline <= now || !self.pin_can_hold(&request) {
            // Does nothing if it was just served.
            self.evict(now, ticket, |by, request| reason_of(by, request, otherwise), out);
            self.hand_over(now, out);
        }
        let Gate { ledger, queue_max, .. } = &*self;
        if ledger.line.len() > *queue_max
            && let Some(worst) = ledger.line.worst(&ledger.ranker)
        {
            self.evict(now, worst.ticket, |_, _| Reason::QueueFull, out);
        }
        Answer::Waits(ticket)
    }

    /// Refuses waiters that the new rules can never serve, so that none claims a pod in vain.
    pub(crate) fn turn_away(&mut self, now: Micros, out: &mut Vec<Output>) {
        let hopeless = |request: &Request| {
            let most = self.most(request.api);
            self.mode != Mode::Enforce || (most > 0 && request.weight > most)
        };
        let waiters = self.ledger.line.iter().map(|(ticket, waiter)| (ticket, waiter.request));
        let hopeless: Vec<(Ticket, Request)> = waiters.filter(|(_, request)| hopeless(request)).collect();
        for (ticket, request) in hopeless {
            // One before may have made room for it.
            if self.ledger.line.get(ticket).is_none() {
                continue;
            }
            self.forget(now, ticket, &request);
            let refusal = match self.mode {
                Mode::Enforce => self.refuse_heavy(&request),
                // Nothing waits in the other modes, and whoever still does found no pod.
                Mode::Shadow | Mode::Off => self.refuse(&request, Reason::NoReadyPod, None),
            };
            out.push(Output::Refused(ticket, refusal));
            self.hand_over(now, out);
        }
    }
}
