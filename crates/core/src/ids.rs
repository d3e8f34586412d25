//! Names of things inside one gate: small numbers that index dense tables.

/// A pod's place in the pool's table. Stable while the process lives: a pod that leaves keeps its
/// number, and gets it back when a pod of the same name returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId(pub u32);

/// An api's place in [`Policy::apis`](crate::policy::Policy::apis). Stable by name across changes
/// of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiId(pub u32);

/// One lease: slot and generation, so that an id that was given back names nothing ever after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// One waiting ask: slot and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

impl PodId {
    /// Index into a dense table of pods.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ApiId {
    /// Index into a dense table of apis.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
