//! Calls that one service passes on to another, over mutual TLS. What else befalls several gates is tested over a real
//! ledger, with the program.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::Value;
use sluicegate_config::DecisionTls;
use sluicegate_decisions::{GateName, Peer, Peers, Settings};
use tokio::net::TcpStream;

use crate::access::{Authority, call, connector};
use crate::world::{World, rules, settings};

/// Where each gate is, by its name.
type Places = Arc<Mutex<BTreeMap<String, String>>>;

/// The gates of a pool that all live, as one of them sees them.
struct Known {
    own: &'static str,
    places: Places,
}

impl Peers for Known {
    fn find(&self, gate: &str) -> Peer {
        let place = self.places.lock().unwrap().get(gate).cloned();
        place.map_or(Peer::Unknown, Peer::At)
    }

    fn others(&self) -> Vec<(String, String)> {
        let places = self.places.lock().unwrap().clone();
        places.into_iter().filter(|(gate, _)| gate != self.own).collect()
    }

    fn lead(&self) -> Duration {
        Duration::ZERO
    }

    fn answered(&self) -> u64 {
        0
    }
}

/// A gate of this name whose certificates are of `issuer`.
fn gate(own: &'static str, issuer: &Authority, places: &Places) -> World {
    let (cert, key) = issuer.issue("127.0.0.1");
    let settings = Settings {
        gate: GateName::new(own).unwrap(),
        tls: Some(DecisionTls { cert, key, client_ca: issuer.ca() }),
        peers: Some(Arc::new(Known { own, places: places.clone() })),
        ..settings()
    };
    let world = World::with(&rules(), &settings);
    places.lock().unwrap().insert(own.to_owned(), format!("https://{}", world.addr));
    world
}

/// A caller with a certificate: status and document of the answer.
async fn said(issuer: &Authority, at: SocketAddr, method: &str, target: &str, body: &str) -> (u16, Value) {
    let connector = connector(issuer.ca(), Some(issuer.issue("caller")));
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = connector.connect(name, TcpStream::connect(at).await.unwrap()).await.unwrap();
    let said = call(stream, method, target, body).await.unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_show_each_other_their_certificates() {
    let (issuer, places) = (Authority::new(), Places::default());
    let (one, two) = (gate("g1", &issuer, &places), gate("g2", &issuer, &places));
    let (status, lease) = said(&issuer, one.addr, "POST", "/v1/leases", "{\"api\": \"heavy\"}").await;
    assert_eq!(status, 201, "{lease}");
    let target = format!("/v1/leases/{}", lease["id"].as_str().unwrap());
    let (status, renewed) = said(&issuer, two.addr, "PUT", &target, "{}").await;
    assert_eq!((status, &renewed["id"]), (200, &lease["id"]), "{renewed}");
    assert_eq!(two.service.counts()().passed_on, 1);
    // A name that its certificate does not have is not believed to be the gate.
    let url = format!("https://localhost:{}", one.addr.port());
    let right = places.lock().unwrap().insert("g1".to_owned(), url).unwrap();
    // What was known of it may be a second old.
    let start = std::time::Instant::now();
    let refused = loop {
        let (status, refused) = said(&issuer, two.addr, "PUT", &target, "{}").await;
        if status != 200 {
            break (status, refused["reason"].clone());
        }
        assert!(start.elapsed() < crate::world::SOON, "it passes calls on to a stranger");
    };
    assert_eq!(refused, (503, Value::from("gate_silent")));
    places.lock().unwrap().insert("g1".to_owned(), right);
    assert_eq!(one.now().in_use, 3);
    assert_eq!(said(&issuer, two.addr, "DELETE", &target, "").await.0, 204);
    one.assert_quiet().await;
}

/// A gate with certificates of others is not heard by this one, nor believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_with_certificates_of_others_is_no_gate_of_the_pool() {
    let (issuer, others, places) = (Authority::new(), Authority::new(), Places::default());
    let (one, two) = (gate("g1", &issuer, &places), gate("g2", &others, &places));
    let (status, lease) = said(&issuer, one.addr, "POST", "/v1/leases", "{\"api\": \"heavy\"}").await;
    assert_eq!(status, 201, "{lease}");
    let target = format!("/v1/leases/{}", lease["id"].as_str().unwrap());
    let (status, refused) = said(&others, two.addr, "PUT", &target, "{}").await;
    assert_eq!((status, &refused["reason"]), (503, &Value::from("gate_silent")), "{refused}");
    assert_eq!(two.service.counts()().passed_on, 0);
    assert_eq!(said(&issuer, one.addr, "DELETE", &target, "").await.0, 204);
    one.assert_quiet().await;
}
