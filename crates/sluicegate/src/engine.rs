//! The core that a gate steps: alone over the embedded ledger, or as one member of a pool that many share.

use sluicegate_core::exchange::Ending;
use sluicegate_core::gate::{Answer, Ask, Gate as Core, Granted, Output};
use sluicegate_core::ids::{ApiId, LeaseId, PodId, Ticket};
use sluicegate_core::member::Member;
use sluicegate_core::policy::{Policy, PolicyError};
use sluicegate_core::snapshot::Snapshot;
use sluicegate_core::time::Micros;

use crate::link::Names;

/// One method per call, the same for both.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one per gate, and the embedded core is not to be looked for"
)]
pub(crate) enum Engine {
    Own(Core),
    /// Boxed, so that the embedded core stays where the lock is.
    Shared(Box<Member>),
}

/// The same call on either.
macro_rules! either {
    ($engine:expr, $core:ident => $call:expr) => {
        match $engine {
            Engine::Own($core) => $call,
            Engine::Shared($core) => $call,
        }
    };
}

impl Engine {
    #[inline]
    pub(crate) fn ask(&mut self, now: Micros, ask: Ask, out: &mut Vec<Output>) -> Answer {
        either!(self, core => core.ask(now, ask, out))
    }

    /// An ask that cannot wait. A member lets each other ask wait for one exchange at least.
    pub(crate) fn try_ask(&mut self, now: Micros, ask: Ask, out: &mut Vec<Output>) -> Answer {
        match self {
            Engine::Own(core) => core.ask(now, Ask { wait_us: Some(0), ..ask }, out),
            Engine::Shared(member) => member.try_ask(now, ask, out),
        }
    }

    #[inline]
    pub(crate) fn release(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        either!(self, core => core.release(now, lease, out))
    }

    pub(crate) fn unused(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        either!(self, core => core.unused(now, lease, out))
    }

    pub(crate) fn write_off(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        either!(self, core => core.write_off(now, lease, out))
    }

    pub(crate) fn relocate(
        &mut self,
        now: Micros,
        lease: LeaseId,
        pod: PodId,
        out: &mut Vec<Output>,
    ) -> bool {
        either!(self, core => core.relocate(now, lease, pod, out))
    }

    pub(crate) fn turned_away(&mut self, now: Micros, lease: LeaseId, out: &mut Vec<Output>) -> bool {
        either!(self, core => core.turned_away(now, lease, out))
    }

    pub(crate) fn retry(
        &mut self,
        now: Micros,
        lease: LeaseId,
        ending: Ending,
        out: &mut Vec<Output>,
    ) -> Option<Answer> {
        either!(self, core => core.retry(now, lease, ending, out))
    }

    pub(crate) fn cancel(&mut self, now: Micros, ticket: Ticket, out: &mut Vec<Output>) -> bool {
        either!(self, core => core.cancel(now, ticket, out))
    }

    pub(crate) fn advance(&mut self, now: Micros, out: &mut Vec<Output>) {
        either!(self, core => core.advance(now, out));
    }

    /// When somebody's wait ends, or time alone serves one who waits. Nobody waits: never.
    #[inline]
    pub(crate) fn next_wake(&self) -> Micros {
        self.core().next_wake().unwrap_or(Micros::NEVER)
    }

    /// Whether a lease granted earlier may still be handed over at `now`.
    #[inline]
    pub(crate) fn is_valid(&self, now: Micros) -> bool {
        match self {
            Engine::Own(_) => true,
            Engine::Shared(member) => member.is_valid(now),
        }
    }

    pub(crate) fn adopt(
        &mut self,
        now: Micros,
        at: (ApiId, PodId),
        weight: u32,
        out: &mut Vec<Output>,
    ) -> Option<Granted> {
        either!(self, core => core.adopt(now, at, weight, out))
    }

    pub(crate) fn exempt(&mut self, api: ApiId) -> Option<PodId> {
        either!(self, core => core.exempt(api))
    }

    pub(crate) fn set_ready(&mut self, now: Micros, pod: PodId, ready: bool, out: &mut Vec<Output>) {
        either!(self, core => core.set_ready(now, pod, ready, out));
    }

    pub(crate) fn report_in_use(&mut self, now: Micros, pod: PodId, units: u32, out: &mut Vec<Output>) {
        either!(self, core => core.report_in_use(now, pod, units, out));
    }

    pub(crate) fn count_enqueued(&mut self, api: ApiId) {
        either!(self, core => core.count_enqueued(api));
    }

    pub(crate) fn count_failed(&mut self, api: ApiId) {
        either!(self, core => core.count_failed(api));
    }

    pub(crate) fn configure(
        &mut self,
        now: Micros,
        policy: Policy,
        out: &mut Vec<Output>,
    ) -> Result<u64, PolicyError> {
        match self {
            Engine::Own(core) => core.configure(now, policy, out),
            Engine::Shared(member) => {
                member.configure(now, &policy, out)?;
                Ok(member.snapshot().version)
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        either!(self, core => core.snapshot())
    }

    pub(crate) fn audit(&self) -> Result<(), String> {
        either!(self, core => core.audit())
    }

    pub(crate) fn api_id(&self, name: &str) -> Option<ApiId> {
        self.core().api_id(name)
    }

    pub(crate) fn pod_id(&self, name: &str) -> Option<PodId> {
        self.core().pod_id(name)
    }

    pub(crate) fn api_name(&self, api: ApiId) -> Option<&str> {
        self.core().api_name(api)
    }

    pub(crate) fn pod_name(&self, pod: PodId) -> Option<&str> {
        self.core().pod_name(pod)
    }

    /// All names there ever were, by number.
    pub(crate) fn names(&self) -> Names {
        let core = self.core();
        let pods = (0..).map_while(|pod| core.pod_name(PodId(pod)).map(str::to_owned));
        let apis = (0..).map_while(|api| core.api_name(ApiId(api)).map(str::to_owned));
        Names::new(pods.collect(), apis.collect())
    }

    #[inline]
    fn core(&self) -> &Core {
        match self {
            Engine::Own(core) => core,
            Engine::Shared(member) => member.gate(),
        }
    }
}
