//! TLS, with certificates made here.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sluicegate::link::{Ledger, LinkErrorKind};
use sluicegate_core::shared::GateId;
use sluicegate_redis::online::check;
use sluicegate_redis::{Settings, Tls};
use sluicegate_testkit::redis::{Redis, RedisOptions, RedisTls};

use crate::kit::{Gate, POOL, by_port, identity, ledger};

/// An authority with its folder.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("the folder is ours");
        Authority { dir, issuer }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for a host and its key, as files.
    fn issue(&self, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("a good name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |end: &str, text: String| {
            let path = self.dir.path().join(format!("{host}.{end}"));
            std::fs::write(&path, text).expect("the folder is ours");
            path
        };
        (file("pem", certificate.pem()), file("key", key.serialize_pem()))
    }
}

fn server(host: &str, authority: &Authority, client_ca: Option<PathBuf>) -> Redis {
    let (cert, key) = authority.issue(host);
    Redis::with(RedisOptions { tls: Some(RedisTls { cert, key, client_ca }), ..RedisOptions::tcp() })
}

fn settings(server: &Redis, ca: Option<PathBuf>, identity: Option<(PathBuf, PathBuf)>) -> Settings {
    let mut settings = by_port(server.addr());
    settings.tls = Some(Tls { ca, identity });
    settings
}

fn refused(settings: &Settings) -> String {
    let error = ledger(settings).connect(GateId(1)).expect_err("an error");
    assert_eq!(error.kind, LinkErrorKind::Unreachable, "{error}");
    error.what
}

#[test]
fn an_own_authority_is_trusted_and_no_other() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let server = server("127.0.0.1", &ours, None);
    let good = settings(&server, Some(ours.ca()), None);
    assert_eq!(ledger(&good).connect(GateId(1)), Ok(identity(&server)));
    let mut gate = Gate::join(&good, 1);
    gate.say(|_| {}).expect("an answer");
    gate.ledger.listen(GateId(1)).expect("it may listen");
    assert_eq!(check(&good, POOL, std::time::Duration::from_secs(5)), []);

    let what = refused(&settings(&server, Some(other.ca()), None));
    assert!(what.contains("certificate"), "{what}");
    let what = refused(&by_port(server.addr()));
    assert!(what.starts_with(&server.addr().to_string()), "without TLS: {what}");
}

#[test]
fn the_certificate_must_name_the_host() {
    let ours = Authority::new("ours");
    let server = server("redis.example", &ours, None);
    let what = refused(&settings(&server, Some(ours.ca()), None));
    assert!(what.contains("not valid for name"), "{what}");
}

#[test]
fn a_server_may_ask_for_our_certificate() {
    let (ours, clients) = (Authority::new("ours"), Authority::new("clients"));
    let server = server("127.0.0.1", &ours, Some(clients.ca()));
    let good = settings(&server, Some(ours.ca()), Some(clients.issue("gate.example")));
    Gate::join(&good, 1);
    refused(&settings(&server, Some(ours.ca()), None));
    refused(&settings(&server, Some(ours.ca()), Some(ours.issue("gate.example"))));
}

#[test]
fn a_bad_file_is_named() {
    let ours = Authority::new("ours");
    let server = server("127.0.0.1", &ours, None);
    let missing = Path::new("missing.pem").to_path_buf();
    let what = refused(&settings(&server, Some(missing), None));
    assert!(what.contains("missing.pem"), "{what}");
    let (cert, key) = ours.issue("gate.example");
    let what = refused(&settings(&server, Some(key.clone()), None));
    assert!(what.contains("no certificate in it"), "{what}");
    let what = refused(&settings(&server, Some(ours.ca()), Some((cert.clone(), cert))));
    assert!(what.contains("no private key in it"), "{what}");
}
