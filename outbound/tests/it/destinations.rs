//! Where requests may go: public addresses and listed host:port pairs, whatever the name, the redirect or the
//! environment says.

use std::process::Command;

use outbound::{Accept, Guard, GuardedClient, HeaderMap, HostPort, OutboundError, Refusal};
use url::Url;

use crate::server::{Names, Reply, Server, client_for, limits, ok};

fn url(text: &str) -> Url {
    Url::parse(text).expect("the test names a URL")
}

async fn code_of(client: &GuardedClient, target: &Url) -> &'static str {
    match client.get(target, &Accept::anything(), HeaderMap::new()).await {
        Ok(fetched) => panic!("{target} answered {}", fetched.status),
        Err(error) => error.code(),
    }
}

#[tokio::test]
async fn a_server_on_this_machine_is_never_reached_unless_listed() {
    let server = Server::always(ok("text/plain", b"internal")).await;
    let port = server.address.port();
    let names = Names::new(&[
        ("evil.example", &[&["127.0.0.1"]]),
        ("evil6.example", &[&["::1"]]),
    ]);
    let client = GuardedClient::with_resolver(Guard::default(), limits(), names);

    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "[::ffff:127.0.0.1]",
        "0",
        "localhost",
        "evil.example",
        "evil6.example",
    ] {
        let target = url(&format!("http://{host}:{port}/"));
        assert_eq!(code_of(&client, &target).await, "url_not_public", "{target}");
    }
    assert_eq!(server.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn one_private_address_spoils_the_answer_for_a_name() {
    let names = Names::new(&[("mixed.example", &[&["1.1.1.1", "10.0.0.7"]])]);
    let client = GuardedClient::with_resolver(Guard::default(), limits(), names);

    let error = client
        .get(
            &url("http://mixed.example/"),
            &Accept::anything(),
            HeaderMap::new(),
        )
        .await
        .expect_err("refused");

    let OutboundError::NotPublic(Refusal::Address { host, address, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(
        (host.as_str(), address.to_string().as_str()),
        ("mixed.example", "10.0.0.7")
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_name_is_resolved_once_per_connection_and_judged_each_time() {
    let server = Server::always(ok("text/plain", b"listed")).await;
    let port = server.address.port();
    let listed: HostPort = format!("site.example:{port}").parse().expect("host:port");
    let names = Names::new(&[
        ("site.example", &[&["127.0.0.1"]]),
        ("rebound.example", &[&["10.0.0.1"], &["127.0.0.1"]]),
    ]);
    let client = GuardedClient::with_resolver(Guard::new(vec![listed]), limits(), names.clone());

    let fetched = client
        .get(
            &url(&format!("http://site.example:{port}/")),
            &Accept::anything(),
            HeaderMap::new(),
        )
        .await
        .expect("listed");
    assert_eq!(fetched.body, "listed");
    assert_eq!(names.asked(), ["site.example"]);

    // Both meanings of the name are refused, each by the one answer that would have been dialled.
    let rebound = url(&format!("http://rebound.example:{port}/"));
    assert_eq!(code_of(&client, &rebound).await, "url_not_public");
    assert_eq!(code_of(&client, &rebound).await, "url_not_public");
    assert_eq!(
        names.asked(),
        ["site.example", "rebound.example", "rebound.example"]
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_listed_name_opens_its_own_port_and_no_other_name_for_the_same_address() {
    let listed = Server::always(ok("text/plain", b"listed")).await;
    let other = Server::always(ok("text/plain", b"other")).await;
    let names = Names::new(&[
        ("intranet.example", &[&["127.0.0.1"]]),
        ("alias.example", &[&["127.0.0.1"]]),
    ]);
    let entry: HostPort = format!("intranet.example:{}", listed.address.port())
        .parse()
        .expect("host:port");
    let client = GuardedClient::with_resolver(Guard::new(vec![entry]), limits(), names);

    let target = url(&format!("http://intranet.example:{}/", listed.address.port()));
    let fetched = client
        .get(&target, &Accept::anything(), HeaderMap::new())
        .await
        .expect("listed");
    assert_eq!(fetched.body, "listed");
    for refused in [
        format!("http://intranet.example:{}/", other.address.port()),
        format!("http://alias.example:{}/", listed.address.port()),
        format!("http://127.0.0.1:{}/", listed.address.port()),
    ] {
        assert_eq!(
            code_of(&client, &url(&refused)).await,
            "url_not_public",
            "{refused}"
        );
    }
    assert_eq!((listed.seen().len(), other.seen().len()), (1, 0));
}

#[tokio::test]
async fn a_name_without_addresses_is_told_apart_from_a_server_that_is_down() {
    let names = Names::new(&[("empty.example", &[&[]])]);
    let client = GuardedClient::with_resolver(Guard::default(), limits(), names);
    assert_eq!(
        code_of(&client, &url("http://unknown.example/")).await,
        "name_not_resolved"
    );
    assert_eq!(
        code_of(&client, &url("http://empty.example/")).await,
        "name_not_resolved"
    );

    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("the port just bound")
    };
    let guard = Guard::new(vec![closed.to_string().parse().expect("host:port")]);
    let client = GuardedClient::new(guard, limits());
    assert_eq!(
        code_of(&client, &url(&format!("http://{closed}/"))).await,
        "unreachable"
    );
}

#[tokio::test]
async fn credentials_in_a_url_are_refused_even_for_a_listed_host() {
    let server = Server::always(ok("text/plain", b"listed")).await;
    let target = url(&format!("http://user:secret@{}/", server.address));
    assert_eq!(code_of(&client_for(&[&server]), &target).await, "url_not_public");
    assert_eq!(server.seen(), Vec::<String>::new());
}

/// Proxies are read from the environment by most HTTP clients; a process with such an environment is made for this test.
#[tokio::test]
async fn proxies_in_the_environment_are_not_used() {
    let proxy = Server::always(ok("text/plain", b"from the proxy")).await;
    let server = Server::always(ok("text/plain", b"direct")).await;
    let proxy_url = format!("http://{}", proxy.address);
    let mut child = Command::new(std::env::current_exe().expect("this test binary"));
    child.args([
        "--ignored",
        "--exact",
        "destinations::child_with_proxies_in_its_environment",
    ]);
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        child.env(name, &proxy_url);
    }
    child
        .env("NO_PROXY", "")
        .env("no_proxy", "")
        .env("OUTBOUND_TEST_SERVER", server.address.to_string());

    let output = tokio::task::spawn_blocking(move || child.output())
        .await
        .expect("no panic")
        .expect("the child runs");

    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(server.seen().len(), 1, "the child asked the server itself");
    assert_eq!(proxy.seen(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "runs as a child of proxies_in_the_environment_are_not_used"]
async fn child_with_proxies_in_its_environment() {
    let address = std::env::var("OUTBOUND_TEST_SERVER").expect("set by the parent");
    let guard = Guard::new(vec![address.parse().expect("host:port")]);
    let client = GuardedClient::new(guard, limits());

    let fetched = client
        .get(
            &url(&format!("http://{address}/")),
            &Accept::anything(),
            HeaderMap::new(),
        )
        .await
        .expect("listed");
    assert_eq!(fetched.body, "direct");

    // A name that only a proxy could reach fails here, in our own resolution.
    let error = client
        .get(
            &url("http://name-for-the-proxy.invalid/"),
            &Accept::anything(),
            HeaderMap::new(),
        )
        .await
        .expect_err("there is no such name");
    assert_eq!(error.code(), "name_not_resolved");
}

#[tokio::test]
async fn a_listed_server_that_hangs_up_is_unreadable_and_may_be_tried_again() {
    for reply in [
        Reply::Raw(Vec::new()),
        Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
    ] {
        let server = Server::always(reply).await;
        let error = client_for(&[&server])
            .get(&server.url("/"), &Accept::anything(), HeaderMap::new())
            .await
            .expect_err("not HTTP");
        assert_eq!(error.code(), "unreadable_answer");
        assert!(error.is_transient());
    }
}
