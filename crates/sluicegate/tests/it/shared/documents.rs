//! The pool's document travels between gates.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use sluicegate::link::{Document, RegisteredPod, Stored};
use sluicegate::{Gate, OnLoss};

use super::policy;
use super::world::{World, until};

type Read = Arc<Mutex<Vec<Document>>>;

/// A gate that keeps the documents it is told; one whose patch says `bad` does not fit it.
fn reader(world: &Arc<World>, label: &str) -> (Gate, Read) {
    let gate = world.gate(&policy(), label, OnLoss::Refuse);
    let read = Read::default();
    let keep = Arc::clone(&read);
    gate.on_document(move |document| {
        if document.patch.contains("bad") {
            return Err("it does not fit".to_owned());
        }
        keep.lock().unwrap().push(document.clone());
        Ok(())
    });
    (gate, read)
}

fn last(read: &Read) -> u64 {
    read.lock().unwrap().last().map_or(0, |document| document.version)
}

fn patched(version: u64, patch: &str) -> Document {
    Document { version, patch: patch.to_owned(), ..Document::default() }
}

fn acknowledged(gate: &Gate, version: u64) -> usize {
    gate.gates_now().unwrap().iter().filter(|gate| gate.version >= version).count()
}

#[tokio::test]
async fn what_one_gate_stores_all_obey_and_acknowledge() {
    let world = World::new();
    let (first, first_read) = reader(&world, "first");
    let (second, second_read) = reader(&world, "second");
    until("both", || first.ledger().up && second.ledger().up).await;
    assert_eq!(first.store_document(0, patched(1, "{\"a\":1}")), Ok(Stored::Stored(1)));
    // Its own gate obeys before the answer; the other by its next exchange.
    assert_eq!(last(&first_read), 1);
    until("the other", || last(&second_read) == 1).await;
    until("both words", || acknowledged(&first, 1) == 2).await;
    assert_eq!(second.document().unwrap().patch, "{\"a\":1}");
    // Who did not know of it may not overwrite it.
    assert_eq!(second.store_document(0, patched(1, "{\"b\":1}")), Ok(Stored::Conflict(1)));
    assert_eq!(second.store_document(1, patched(2, "{\"b\":1}")), Ok(Stored::Stored(2)));
    until("the second change", || last(&first_read) == 2).await;
}

#[tokio::test]
async fn a_document_that_does_not_fit_is_not_acknowledged_and_the_next_one_heals() {
    let world = World::new();
    let (gate, read) = reader(&world, "g");
    until("it", || gate.ledger().up).await;
    gate.store_document(0, patched(1, "{}")).unwrap();
    gate.store_document(1, patched(2, "bad")).unwrap();
    let ledger = gate.ledger();
    assert_eq!((ledger.version, ledger.document_error.as_deref()), (1, Some("it does not fit")));
    let exchanges = ledger.exchanges;
    until("some exchanges", || gate.ledger().exchanges > exchanges + 1).await;
    assert_eq!(acknowledged(&gate, 2), 0);
    gate.store_document(2, patched(3, "{}")).unwrap();
    assert_eq!((gate.ledger().version, gate.ledger().document_error), (3, None));
    assert_eq!(last(&read), 3);
}

#[tokio::test]
async fn a_document_that_the_ledger_lost_is_put_back() {
    let world = World::new();
    let (gate, read) = reader(&world, "g");
    until("it", || gate.ledger().up).await;
    let pod = RegisteredPod { url: "http://127.0.0.1:9".to_owned(), capacity: 5, until_ms: 1 };
    let document = Document { pods: [("p".to_owned(), pod)].into(), ..patched(4, "{\"a\":1}") };
    gate.store_document(0, document).unwrap();
    world.forget_document();
    until("the put-back", || world.document().version == 4).await;
    let back = world.document();
    assert_eq!(back.patch, "{\"a\":1}");
    // Its renewal may be late by as long as nobody could renew.
    assert!(back.pods["p"].until_ms > back.now_ms);
    assert_eq!(last(&read), 4);
    // Also by whoever is asked for it before the next exchange.
    world.forget_document();
    assert_eq!(gate.document().unwrap().version, 4);
}

#[tokio::test]
async fn a_gate_that_comes_later_reads_what_was_stored_before() {
    let world = World::new();
    let (gate, _) = reader(&world, "g");
    until("it", || gate.ledger().up).await;
    gate.store_document(0, patched(1, "{\"a\":1}")).unwrap();
    let (_late, read) = reader(&world, "late");
    until("the document", || last(&read) == 1).await;
}

#[tokio::test]
async fn errands_fail_in_words_while_the_ledger_is_gone() {
    let world = World::new();
    world.failing.store(true, Ordering::SeqCst);
    let gate = world.gate(&policy(), "g", OnLoss::Refuse);
    until("a failure", || gate.ledger().last_error.is_some()).await;
    assert!(gate.document().unwrap_err().to_string().contains("the test cut it"));
    assert!(gate.store_document(0, Document::default()).is_err() && gate.gates_now().is_err());
    assert!(gate.gates().is_empty());
}
