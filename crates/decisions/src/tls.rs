//! Who may call: mutual TLS, and the token.

use std::io;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, header};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sluicegate_config::DecisionTls;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The acceptor for callers with a certificate.
pub(crate) fn acceptor(settings: &DecisionTls) -> io::Result<TlsAcceptor> {
    let authorities = authorities(settings)?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(authorities.into(), provider.clone())
        .build()
        .map_err(|error| fault(&settings.client_ca, &error))?;
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|error| fault(&settings.key, &error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&settings.cert)?, key)
        .map_err(|error| fault(&settings.cert, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The connector for calls to other gates: they show certificates of the same authorities as all callers, and so do we.
pub(crate) fn connector(settings: &DecisionTls) -> io::Result<TlsConnector> {
    let authorities = authorities(settings)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|error| fault(&settings.key, &error))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(authorities)
        .with_client_auth_cert(certificates(&settings.cert)?, key)
        .map_err(|error| fault(&settings.cert, &error))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn authorities(settings: &DecisionTls) -> io::Result<RootCertStore> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(&settings.client_ca)? {
        authorities.add(certificate).map_err(|error| fault(&settings.client_ca, &error))?;
    }
    Ok(authorities)
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| fault(path, &error))?.collect();
    let all = all.map_err(|error| fault(path, &error))?;
    if all.is_empty() {
        return Err(fault(path, &"there is no certificate in it"));
    }
    Ok(all)
}

fn fault(path: &Path, what: &dyn std::fmt::Display) -> io::Error {
    let what = format!("{}: {what}\n  mend: give a PEM file that this process may read", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// What callers must show.
pub(crate) struct Token(Option<String>);

impl Token {
    pub(crate) fn new(token: Option<String>) -> Token {
        Token(token)
    }

    /// True if no token is needed, or these headers show it.
    pub(crate) fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.0 else { return true };
        let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        given.split_at_checked(7).is_some_and(|(scheme, rest)| {
            scheme.eq_ignore_ascii_case(b"bearer ") && same(rest, token.as_bytes())
        })
    }
}

/// Compares in a time that does not tell how much of the guess was right.
fn same(given: &[u8], token: &[u8]) -> bool {
    given.len() == token.len()
        && given.iter().zip(token).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}
