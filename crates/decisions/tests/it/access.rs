//! Who may call: token, mutual TLS, Unix socket.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use sluicegate_config::{DecisionTls, DoorAddress};
use sluicegate_decisions::{Bound, Decisions, Directory, Settings};
use sluicegate_testkit::client::Raw;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::world::{World, begin, config, rules, settings};

#[tokio::test]
async fn the_token_is_wanted_where_one_is_set() {
    let settings = Settings { token: Some("long-and-secret".to_owned()), ..settings() };
    let world = World::with(&rules(), &settings);
    for (header, status) in [
        ("x-nothing: 1", 401),
        ("authorization: Bearer long-and-secreT", 401),
        ("authorization: Basic long-and-secret", 401),
        ("authorization: bearer long-and-secret", 201),
    ] {
        let answer = begin(world.addr, &[header], json!({"api": "light"})).await.answer().await.unwrap();
        assert_eq!(answer.head.status, status, "{header}");
        if status == 401 {
            assert_eq!(answer.head.header("www-authenticate"), "Bearer");
        }
    }
    let mut client = Raw::connect(world.addr).await.unwrap();
    assert_eq!(client.get("/v1/openapi.json").await.unwrap().head.status, 200, "the document is no secret");
}

#[test]
fn others_may_not_reach_a_door_without_a_lock() {
    let start = |settings: &Settings| {
        let config = config(&rules());
        let gate = sluicegate::Gate::new(config.policy.clone()).unwrap();
        let directory = Arc::new(Directory::new(&gate, &config));
        let bound = Bound::listen(&DoorAddress::Tcp("0.0.0.0:0".parse().unwrap())).unwrap();
        Decisions::start(gate, directory, bound, settings).map(drop)
    };
    let error = start(&settings()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("mend:"), "{error}");
    start(&Settings { token: Some("long-and-secret".to_owned()), ..settings() }).unwrap();
}

/// One `POST` over any stream; the whole answer, up to its close.
async fn post(stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<String> {
    call(stream, "POST", "/v1/leases", "{\"api\": \"light\"}").await
}

/// One call over any stream; the whole answer, up to its close.
pub(crate) async fn call(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    target: &str,
    body: &str,
) -> std::io::Result<String> {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await?;
    Ok(said)
}

#[tokio::test]
async fn a_unix_socket_is_as_good_and_its_file_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let address = DoorAddress::Unix(path.clone());
    // One that a dead process left is replaced; one that is served is not.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bound = Bound::listen(&address).unwrap();
    let taken = Bound::listen(&address).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse, "{taken}");
    let config = config(&rules());
    let gate = sluicegate::Gate::new(config.policy.clone()).unwrap();
    let directory = Arc::new(Directory::new(&gate, &config));
    // Who may open the file needs no token.
    let settings = Settings { token: Some("long-and-secret".to_owned()), ..settings() };
    let service = Decisions::start(gate.clone(), directory, bound, &settings).unwrap();
    assert_eq!(service.local_addr(), None);
    let said = post(UnixStream::connect(&path).await.unwrap()).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 201"), "{said}");
    assert_eq!(gate.snapshot().in_use, 1);
    drop(service);
    assert!(!path.exists());
    assert_eq!(gate.snapshot().in_use, 0);
}

/// An authority, and what it issued, in a folder.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { folder, issuer }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn issue(&self, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str, text: String| {
            let path = self.folder.path().join(format!("{host}.{end}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        (file("pem", certificate.pem()), file("key", key.serialize_pem()))
    }
}

pub(crate) fn connector(ca: PathBuf, identity: Option<(PathBuf, PathBuf)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match identity {
        Some((cert, key)) => {
            let cert = vec![CertificateDer::from_pem_file(cert).unwrap()];
            builder.with_client_auth_cert(cert, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn mutual_tls_hears_callers_with_a_certificate_and_no_others() {
    let (ours, callers) = (Authority::new(), Authority::new());
    let (cert, key) = ours.issue("127.0.0.1");
    let tls = DecisionTls { cert, key, client_ca: callers.ca() };
    let world = World::with(&rules(), &Settings { tls: Some(tls), ..settings() });
    let call = async |identity| {
        let tcp = TcpStream::connect(world.addr).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        post(connector(ours.ca(), identity).connect(name, tcp).await?).await
    };
    let said = call(Some(callers.issue("caller"))).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 201"), "{said}");
    for bad in [None, Some(ours.issue("other"))] {
        // With TLS 1.3 the refusal comes with the first read.
        assert!(call(bad).await.is_err());
    }
    assert_eq!(world.now().in_use, 1);
    // In clear text nobody is heard.
    let mut plain = Raw::connect(world.addr).await.unwrap();
    assert!(plain.get("/v1/openapi.json").await.is_err());
}
