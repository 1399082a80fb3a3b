//! The command line as a client of the running server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use url::Url;

use super::args::ServerArgs;
use super::{Failure, failed};
use crate::config::Config;

/// How long the server may take to accept a connection, and to answer `/health`.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a server may stay silent in the middle of an answer: twice what the slowest model is allowed.
const SILENCE_LIMIT: Duration = Duration::from_secs(240);

/// `frontdesk health`
pub(super) async fn health(config: &Config, args: ServerArgs) -> Result<(), Failure> {
    let server = server_url(config, args)?;
    check(&http_client()?, &server)
        .await
        .map_err(|error| Failure::Failed(format!("no server answers at {server}: {error}")))
}

/// Where the server is: as given, or where the configuration lets it listen.
pub(super) fn server_url(config: &Config, args: ServerArgs) -> Result<Url, Failure> {
    if let Some(url) = args.server {
        return if matches!(url.scheme(), "http" | "https") && url.has_host() {
            Ok(url)
        } else {
            Err(Failure::Usage(format!(
                "--server: {url} is not an http or https URL"
            )))
        };
    }
    let listen = config.server.listen;
    if listen.port() == 0 {
        return Err(Failure::Usage(
            "server.listen lets the server pick its port: name the one it picked with --server http://…"
                .to_owned(),
        ));
    }
    Ok(reachable(listen))
}

/// The URL under which this machine reaches a server that listens at `address`.
pub(super) fn reachable(address: SocketAddr) -> Url {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let host = SocketAddr::new(host, address.port());
    Url::parse(&format!("http://{host}/")).expect("a socket address is a valid authority")
}

/// Whether a server answers there; if not, why.
pub(super) async fn check(client: &reqwest::Client, server: &Url) -> Result<(), String> {
    let answer = client
        .get(endpoint(server, "health"))
        .timeout(HEALTH_TIMEOUT)
        .send()
        .await
        .map_err(|error| super::with_causes(&error.without_url()))?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(format!("/health answers {}", answer.status()))
    }
}

/// An address below the server's own, which may have a path.
pub(super) fn endpoint(server: &Url, path: &str) -> Url {
    let mut url = server.clone();
    url.set_path(&format!("{}/{path}", server.path().trim_end_matches('/')));
    url.set_query(None);
    url
}

/// A client for the server that the operator names.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own server, which usually has a private address"
)]
pub(super) fn http_client() -> Result<reqwest::Client, Failure> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(outbound::tls_config())
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(HEALTH_TIMEOUT)
        .read_timeout(SILENCE_LIMIT)
        .tcp_nodelay(true)
        .build()
        .map_err(|error| failed("cannot make an HTTP client", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str) -> Config {
        Config::load(None, [], &[("server.listen".to_owned(), listen.to_owned())])
            .expect("a valid configuration")
    }

    fn url(config: &Config, server: Option<&str>) -> Result<String, Failure> {
        server_url(
            config,
            ServerArgs {
                server: server.map(|text| text.parse().expect("a URL")),
            },
        )
        .map(String::from)
    }

    #[test]
    fn the_server_is_looked_for_where_it_listens() {
        assert_eq!(
            url(&config("127.0.0.1:8080"), None).expect("known"),
            "http://127.0.0.1:8080/"
        );
        assert_eq!(
            url(&config("0.0.0.0:81"), None).expect("known"),
            "http://127.0.0.1:81/"
        );
        assert_eq!(url(&config("[::]:81"), None).expect("known"), "http://[::1]:81/");
        assert_eq!(
            url(&config("0.0.0.0:81"), Some("https://desk.example.com/base")).expect("given"),
            "https://desk.example.com/base"
        );
    }

    #[test]
    fn a_port_that_the_server_picks_has_to_be_told() {
        assert_eq!(
            url(&config("127.0.0.1:0"), None)
                .expect_err("unknown")
                .exit_code(),
            2
        );
        assert_eq!(
            url(&config("127.0.0.1:80"), Some("file:///etc/passwd"))
                .expect_err("no server")
                .exit_code(),
            2
        );
    }

    #[test]
    fn a_path_of_the_server_is_kept() {
        let server = Url::parse("https://example.com/desk/").expect("a URL");

        assert_eq!(
            endpoint(&server, "api/chat/message").as_str(),
            "https://example.com/desk/api/chat/message"
        );
    }
}
