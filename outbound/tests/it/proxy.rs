//! The proxy for programs that make their own requests: it leads where the client would, and nowhere else.

use std::net::SocketAddr;

use outbound::{Guard, GuardedProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{Names, Server, ok};

async fn proxy_for(servers: &[&Server]) -> GuardedProxy {
    let listed = servers.iter().map(|server| server.listed()).collect();
    GuardedProxy::start(Guard::new(listed))
        .await
        .expect("a free port")
}

/// Sends `request` to the proxy and gives all that comes back.
async fn exchange(proxy: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    // It may close before it has read everything.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_listed_host_is_reached_by_tunnel_and_by_plain_request() {
    let server = Server::always(ok("text/plain", b"hello")).await;
    let proxy = proxy_for(&[&server]).await;
    let host = server.address;

    let tunnelled = exchange(
        proxy.address(),
        &format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n\r\nGET /tunnel HTTP/1.1\r\nhost: x\r\n\r\n"),
    )
    .await;
    let plain = exchange(
        proxy.address(),
        &format!(
            "GET http://{host}/plain?a=1 HTTP/1.1\r\nhost: other\r\nproxy-authorization: secret\r\nx-own: 1\r\n\r\n"
        ),
    )
    .await;

    assert!(
        tunnelled.starts_with("HTTP/1.1 200 Connection established\r\n\r\n"),
        "{tunnelled}"
    );
    assert!(
        tunnelled.ends_with("hello") && plain.ends_with("hello"),
        "{tunnelled} {plain}"
    );
    let [_, request] = server.seen().try_into().expect("two requests");
    assert!(request.starts_with("GET /plain?a=1 HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains(&format!("host: {host}\r\n")) && !request.contains("other"),
        "{request}"
    );
    assert!(
        request.contains("x-own: 1") && !request.contains("secret"),
        "{request}"
    );
}

#[tokio::test]
async fn places_that_are_not_public_are_refused() {
    let inside = Server::always(ok("text/plain", b"internal")).await;
    let proxy = proxy_for(&[]).await;
    let port = inside.address.port();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "localhost",
        "169.254.169.254",
        "metadata.internal",
    ] {
        for request in [
            format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n"),
            format!("GET http://{host}:{port}/ HTTP/1.1\r\n\r\n"),
        ] {
            let answer = exchange(proxy.address(), &request).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{request}: {answer}");
        }
    }
    assert_eq!(inside.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_is_refused_when_any_of_its_addresses_is_private() {
    let names = Names::new(&[("rebinding.example", &[&["93.184.216.34", "127.0.0.1"]])]);
    let proxy = GuardedProxy::with_resolver(Guard::default(), names.clone())
        .await
        .expect("a free port");

    let answer = exchange(proxy.address(), "CONNECT rebinding.example:443 HTTP/1.1\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(names.asked(), ["rebinding.example"]);
}

#[tokio::test]
async fn what_is_no_request_for_a_proxy_is_refused() {
    let server = Server::always(ok("text/plain", b"hello")).await;
    let proxy = proxy_for(&[&server]).await;
    let host = server.address;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (format!("GET https://{host}/ HTTP/1.1\r\n\r\n"), "400"),
        ("GET file:///etc/passwd HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (format!("POST http://{host}/ HTTP/1.1\r\n\r\n"), "405"),
        ("CONNECT example.org HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (
            "CONNECT user:pass@example.org:443 HTTP/1.1\r\n\r\n".to_owned(),
            "403",
        ),
        (format!("CONNECT {host}/path:1 HTTP/1.1\r\n\r\n"), "400"),
        ("nonsense\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = exchange(proxy.address(), &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {answer}"
        );
    }
    assert_eq!(server.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn a_second_request_on_a_plain_connection_goes_nowhere() {
    let server = Server::always(ok("text/plain", b"hello")).await;
    let proxy = proxy_for(&[&server]).await;
    let host = server.address;

    exchange(
        proxy.address(),
        &format!("GET http://{host}/a HTTP/1.1\r\n\r\nGET http://{host}/b HTTP/1.1\r\n\r\n"),
    )
    .await;

    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_proxy_ends_when_it_is_dropped() {
    let proxy = proxy_for(&[]).await;
    let address = proxy.address();
    drop(proxy);
    for _ in 0..100 {
        if TcpStream::connect(address).await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it still listens");
}
