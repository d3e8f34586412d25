//! Where the changes of a running pool are kept: in the ledger that its gates share, or in this process.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sluicegate::Gate;
use sluicegate::link::{Document, LinkError, Stored};

/// The pool's document.
pub(super) enum Documents {
    /// This gate is alone. The clock counts from the gate's start.
    Local(Mutex<Document>, Instant),
    /// With the ledger; the gate tells of what others store.
    Shared(Gate),
}

impl Documents {
    pub(super) fn local() -> Documents {
        Documents::Local(Mutex::default(), Instant::now())
    }

    /// The document as it is, and the time by the clock that counts for it.
    pub(super) fn read(&self) -> Result<Document, LinkError> {
        match self {
            Documents::Local(document, began) => {
                let document = document.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Ok(Document { now_ms: began.elapsed().as_millis() as u64, ..document })
            }
            Documents::Shared(gate) => gate.document(),
        }
    }

    /// Stores `next` in place of the version `expected`.
    pub(super) fn store(&self, expected: u64, next: Document) -> Result<Stored, LinkError> {
        match self {
            Documents::Local(document, _) => {
                let mut document = document.lock().unwrap_or_else(PoisonError::into_inner);
                if document.version != expected {
                    return Ok(Stored::Conflict(document.version));
                }
                *document = next;
                Ok(Stored::Stored(document.version))
            }
            Documents::Shared(gate) => gate.store_document(expected, next),
        }
    }
}
