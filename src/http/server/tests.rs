//! Connections against a real port; time stands still where a limit is waited for.

use axum::routing::{get, post};
use bytes::Bytes;
use futures::stream;

use super::*;

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    ending: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

fn start(router: Router, max_connections: usize, grace: Duration) -> Running {
    let connections = Connections {
        most: max_connections,
        most_per_address: max_connections,
        trusted_proxies: Vec::new(),
    };
    start_with(router, connections, grace)
}

fn start_with(router: Router, connections: Connections, grace: Duration) -> Running {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let stop = CancellationToken::new();
    let ending = CancellationToken::new();
    let served = tokio::spawn(serve(
        router,
        listener,
        connections,
        stop.clone(),
        ending.clone(),
        grace,
    ));
    Running {
        address,
        stop,
        ending,
        served,
    }
}

async fn connect(server: &Running) -> TcpStream {
    TcpStream::connect(server.address)
        .await
        .expect("the server accepts")
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("the server reads");
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(end) {
        let length = stream.read_buf(&mut bytes).await.expect("readable");
        assert!(
            length > 0,
            "closed before {end:?}: {}",
            String::from_utf8_lossy(&bytes)
        );
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_handler_learns_who_connects_and_the_connection_stays_open() {
    let router = Router::new().route(
        "/",
        get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }),
    );
    let server = start(router, 10, Duration::from_secs(1));
    let mut client = connect(&server).await;
    let own_address = client.local_addr().expect("connected").to_string();

    for _ in 0..2 {
        send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;

        assert!(
            read_until(&mut client, &own_address)
                .await
                .starts_with("HTTP/1.1 200")
        );
    }
}

#[tokio::test]
async fn one_address_holds_its_share_of_the_connections_and_a_trusted_proxy_as_many_as_there_are() {
    for (trusted_proxies, expected) in [
        (Vec::new(), "HTTP/1.1 429"),
        (vec![IpAddr::from([127, 0, 0, 1])], "HTTP/1.1 200"),
    ] {
        let connections = Connections {
            most: 3,
            most_per_address: 1,
            trusted_proxies,
        };
        let server = start_with(
            Router::new().route("/", get(|| async { "served" })),
            connections,
            Duration::from_secs(1),
        );
        let mut inside = connect(&server).await;
        send(&mut inside, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        read_until(&mut inside, "served").await;

        let mut second = connect(&server).await;
        send(
            &mut second,
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        let answer = read_all(&mut second).await;

        assert!(answer.starts_with(expected), "{answer}");
        if expected.ends_with("429") {
            assert!(
                answer.contains("retry-after: 5") && answer.contains("too_many_connections_from_address"),
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn newcomers_past_the_limit_are_told_so_and_those_inside_are_served() {
    let server = start(
        Router::new().route("/", get(|| async { "served" })),
        1,
        Duration::from_secs(1),
    );
    let mut inside = connect(&server).await;
    send(&mut inside, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut inside, "served").await;

    let mut newcomer = connect(&server).await;
    send(&mut newcomer, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let refusal = read_until(&mut newcomer, "shortly\"}").await;

    assert!(
        refusal.starts_with("HTTP/1.1 503")
            && refusal.contains("retry-after: 5")
            && refusal.contains("too_many_connections"),
        "{refusal}"
    );
    send(&mut inside, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(
        read_until(&mut inside, "served")
            .await
            .starts_with("HTTP/1.1 200")
    );
    drop((inside, newcomer));
    // The place is free as soon as the server has seen the connection end.
    loop {
        let mut next = connect(&server).await;
        send(
            &mut next,
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        if read_all(&mut next).await.starts_with("HTTP/1.1 200") {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn too_many_or_too_long_headers_are_refused() {
    let server = start(
        Router::new().route("/", get(|| async { "served" })),
        10,
        Duration::from_secs(1),
    );
    let many = "a: b\r\n".repeat(MAX_HEADERS + 1);
    let long = format!("a: {}\r\n", "b".repeat(MAX_HEADER_BYTES));

    for headers in [many, long] {
        let mut client = connect(&server).await;
        let _ = client
            .write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes())
            .await;

        assert!(
            read_until(&mut client, "\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 431")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_finish_its_request_head_is_closed() {
    let server = start(Router::new(), 10, Duration::from_secs(1));
    let started = tokio::time::Instant::now();
    let mut client = connect(&server).await;
    send(&mut client, "GET / HTTP/1.1\r\nhost:").await;

    assert_eq!(read_all(&mut client).await, "");

    assert!(
        started.elapsed() >= FIRST_HEAD_LIMIT && started.elapsed() < FIRST_HEAD_LIMIT * 2,
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_falls_silent_in_a_body_is_closed() {
    let router = Router::new().route(
        "/",
        post(|body: Bytes| async move { format!("{} bytes", body.len()) }),
    );
    let server = start(router, 10, Duration::from_secs(1));
    let mut client = connect(&server).await;
    send(
        &mut client,
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf",
    )
    .await;

    let answer = read_all(&mut client).await;

    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

/// Tells when it is dropped.
struct Teller(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Teller {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_its_answer_is_closed() {
    let (teller, mut told) = tokio::sync::mpsc::unbounded_channel();
    let endless = move || {
        let teller = Teller(teller.clone());
        async move {
            Body::from_stream(stream::unfold(teller, |teller| async move {
                Some((Ok::<_, io::Error>(Bytes::from(vec![b'x'; 65536])), teller))
            }))
        }
    };
    let server = start(Router::new().route("/", get(endless)), 10, Duration::from_secs(1));
    let started = tokio::time::Instant::now();
    let mut client = connect(&server).await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut client, "200 OK").await;

    told.recv().await.expect("the answer's stream is dropped");

    assert!(started.elapsed() >= WRITE_STALL_LIMIT, "{:?}", started.elapsed());
}

#[tokio::test]
async fn stopping_lets_a_running_request_finish_and_takes_no_new_one() {
    let (go, wait) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(tokio::sync::Notify::new()),
    );
    let handler = {
        let (go, wait) = (go.clone(), wait.clone());
        move || async move {
            wait.notify_one();
            go.notified().await;
            "finished"
        }
    };
    let server = start(
        Router::new().route("/", get(handler)),
        10,
        Duration::from_secs(60),
    );
    let mut client = connect(&server).await;
    let mut idle = connect(&server).await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    wait.notified().await;

    server.stop.cancel();

    assert_eq!(read_all(&mut idle).await, "", "an idle connection is closed");
    go.notify_one();
    assert!(read_all(&mut client).await.ends_with("finished"));
    server.served.await.expect("the server ends");
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_told_to_end_after_the_grace_may_say_so() {
    let told = CancellationToken::new();
    let handler = {
        let told = told.clone();
        move || async move {
            told.cancelled().await;
            "to be continued"
        }
    };
    let server = start(Router::new().route("/", get(handler)), 10, Duration::from_secs(5));
    let ending = server.ending.clone();
    tokio::spawn(async move {
        ending.cancelled().await;
        told.cancel();
    });
    let mut client = connect(&server).await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let started = tokio::time::Instant::now();

    server.stop.cancel();

    assert!(read_all(&mut client).await.ends_with("to be continued"));
    assert!(
        started.elapsed() >= Duration::from_secs(5),
        "the grace comes first"
    );
    server.served.await.expect("the server ends");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_within_the_grace_is_cut_off() {
    let server = start(
        Router::new().route("/", get(std::future::pending::<()>)),
        10,
        Duration::from_secs(5),
    );
    let mut client = connect(&server).await;
    send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(10)).await;

    server.stop.cancel();

    assert_eq!(read_all(&mut client).await, "");
    server.served.await.expect("the server ends");
}
