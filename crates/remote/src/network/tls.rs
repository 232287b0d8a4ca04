//! What TLS needs to know: who signs servers, and our own certificate.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::config::Tls;
use crate::link::LinkError;

fn refused(what: impl std::fmt::Display) -> LinkError {
    LinkError::Certificate(what.to_string())
}

/// Sessions of TLS, whose certificates are read once.
pub(super) struct Sessions {
    tls: Tls,
    settings: OnceLock<Result<Arc<ClientConfig>, LinkError>>,
}

impl Sessions {
    pub(super) fn new(tls: Tls) -> Sessions {
        Sessions {
            tls,
            settings: OnceLock::new(),
        }
    }

    /// A session with this host that has not shaken hands yet.
    pub(super) fn begin(&self, host: &str) -> Result<ClientConnection, LinkError> {
        let made = || settings(&self.tls).map(Arc::new);
        let settings = self.settings.get_or_init(made).clone()?;
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| refused(format_args!("{host} is no name of a certificate")))?;
        ClientConnection::new(settings, name).map_err(refused)
    }
}

fn settings(tls: &Tls) -> Result<ClientConfig, LinkError> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(refused)?).map_err(refused)?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(refused)?;
    let builder = builder.with_root_certificates(roots);
    match &tls.client {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain);
            let chain = chain.collect::<Result<Vec<_>, _>>().map_err(refused)?;
            let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes()).map_err(refused)?;
            builder.with_client_auth_cert(chain, key).map_err(refused)
        }
    }
}
