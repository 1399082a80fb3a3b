//! Trust in servers: the certificate authorities of the operating system, or Mozilla's where it has none.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

/// The TLS settings of every client of this process: certificates are verified, HTTP/2 is offered before HTTP/1.1.
///
/// Reads some 150 certificates from disk; make one and clone it. A machine without any (a slim container) trusts the
/// authorities of Mozilla that are compiled in, so that the service starts and works there too.
pub fn tls_config() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}
