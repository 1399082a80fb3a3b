//! Deadlines, certificates, and the headers that are not the caller's to set.

use std::sync::Arc;
use std::time::Duration;

use outbound::{Accept, Guard, GuardedClient, HeaderMap, HeaderName, HeaderValue, Limits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use crate::server::{Reply, Server, client_for, limits, ok};

fn hurried(client: &GuardedClient) -> GuardedClient {
    client.with_limits(Limits {
        total: Duration::from_millis(300),
        ..limits()
    })
}

#[tokio::test]
async fn the_deadline_covers_silence_drips_and_all_redirects_together() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n".to_vec();
    let silent = Server::always(Reply::Hang(Vec::new())).await;
    let silent_after_head = Server::always(Reply::Hang(head.clone())).await;
    let dripping = Server::always(Reply::Drip(head)).await;
    let dripping_head = Server::always(Reply::Drip(b"HTTP/1.1 200 OK\r\nx-long: ".to_vec())).await;
    // Each redirect is quick enough alone; five of them are not.
    let hop =
        b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec();
    let detour = Server::always(Reply::After(Duration::from_millis(120), hop)).await;

    for server in [&silent, &silent_after_head, &dripping, &dripping_head, &detour] {
        let error = hurried(&client_for(&[server]))
            .get(&server.url("/"), &Accept::anything(), HeaderMap::new())
            .await
            .expect_err("too slow");
        assert_eq!(error.code(), "timed_out", "{}", server.seen().join("\n"));
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_refused() {
    let certificate =
        CertificateDer::from_pem_slice(include_bytes!("fixtures/self-signed.crt")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("fixtures/self-signed.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key fits the certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("the port just bound");
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("the client connects");
        TlsAcceptor::from(Arc::new(config))
            .accept(stream)
            .await
            .err()
            .map(|error| error.to_string())
    });
    let client = GuardedClient::new(
        Guard::new(vec![address.to_string().parse().expect("host:port")]),
        limits(),
    );

    let target = Url::parse(&format!("https://{address}/")).expect("a URL");
    let error = client
        .get(&target, &Accept::anything(), HeaderMap::new())
        .await
        .expect_err("not trusted");

    assert_eq!(error.code(), "tls_failed");
    let told = server.await.expect("no panic").expect("the handshake fails");
    assert!(told.contains("UnknownCA") || told.contains("alert"), "{told}");
}

#[tokio::test]
async fn plain_text_where_tls_is_expected_is_not_trusted_either() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("the port just bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("the client connects");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nhello")
            .await
            .expect("the client still listens");
        // Closing at once could reset the connection before the client has read.
        std::future::pending::<()>().await;
    });
    let client = GuardedClient::new(
        Guard::new(vec![address.to_string().parse().expect("host:port")]),
        limits(),
    );

    let target = Url::parse(&format!("https://{address}/")).expect("a URL");
    let error = client
        .get(&target, &Accept::anything(), HeaderMap::new())
        .await
        .expect_err("no TLS there");

    assert_eq!(error.code(), "tls_failed");
}

#[tokio::test]
async fn headers_of_the_transport_can_not_be_set() {
    let server = Server::always(ok("text/plain", b"hello")).await;
    for name in [
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "keep-alive",
        "accept-encoding",
        "proxy-authorization",
        "proxy-connection",
    ] {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("x"))]);
        let answer = client_for(&[&server])
            .get(&server.url("/"), &Accept::anything(), headers)
            .await;
        assert_eq!(answer.expect_err(name).code(), "header_not_allowed", "{name}");
    }
    assert_eq!(server.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn servers_are_told_who_asks_and_that_gzip_is_understood() {
    let server = Server::always(ok("text/plain", b"hello")).await;
    let client = client_for(&[&server]);

    client
        .get(&server.url("/"), &Accept::anything(), HeaderMap::new())
        .await
        .expect("listed");
    let named = HeaderMap::from_iter([(
        HeaderName::from_static("user-agent"),
        HeaderValue::from_static("crawler/2"),
    )]);
    client
        .get(&server.url("/"), &Accept::anything(), named)
        .await
        .expect("listed");

    let [plain, named] = server.seen().try_into().expect("two requests");
    assert!(
        plain.contains("user-agent: frontdesk/") && plain.contains("accept-encoding: gzip\r\n"),
        "{plain}"
    );
    assert!(
        named.contains("user-agent: crawler/2") && !named.contains("frontdesk"),
        "{named}"
    );
}
