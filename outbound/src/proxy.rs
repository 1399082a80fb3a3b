//! The guard for a program that makes its own requests, such as a browser: a proxy on a loopback port that judges where
//! each connection leads and dials an address that it judged.
//!
//! It speaks just enough HTTP: `CONNECT` for tunnels, and `GET` or `HEAD` of a plain http URL. It forwards one request
//! per connection and adds nothing. Whoever can connect to the port can reach public hosts through it, and nothing else.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use url::{Host, Url};

use crate::guard::Guard;
use crate::resolve::{Resolver, SystemResolver, judge_answer};

/// Of a request's first line and headers.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// For the head of a request, and for a connection to a server.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// What one connection may last and bring.
const MAX_TIME: Duration = Duration::from_secs(60);
const MAX_BYTES: u64 = 20 << 20;

/// Connections at a time; more wait.
const MAX_CONNECTIONS: usize = 64;

/// A running proxy. It ends when dropped.
#[derive(Debug)]
pub struct GuardedProxy {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl GuardedProxy {
    /// Listens on a free loopback port, for this process and its children.
    pub async fn start(guard: Guard) -> io::Result<Self> {
        Self::with_resolver(guard, Arc::new(SystemResolver)).await
    }

    /// Resolves names by `resolver`, whose answers are judged like any other.
    pub async fn with_resolver(guard: Guard, resolver: Arc<dyn Resolver>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, Arc::new(Judge { guard, resolver })));
        Ok(Self { address, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for GuardedProxy {
    fn drop(&mut self) {
        // The connections it serves end with it.
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, judge: Arc<Judge>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((client, _)) => {
                let judge = judge.clone();
                connections.spawn(async move {
                    // A connection that ends early is its own answer.
                    let _ = timeout(MAX_TIME, forward(client, &judge)).await;
                    drop(slot);
                });
            }
            // Out of file handles, for instance: let some be closed.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// What a client of the proxy asks for.
enum Wish {
    Tunnel { to: Url },
    Plain { method: String, url: Url },
}

/// Why nothing was forwarded, as a status line.
type Refused = &'static str;

async fn forward(mut client: TcpStream, judge: &Judge) -> io::Result<()> {
    let head = timeout(CONNECT_TIME, read_head(&mut client)).await??;
    let refuse = async |client: &mut TcpStream, status: Refused| {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        client.write_all(answer.as_bytes()).await?;
        client.shutdown().await
    };
    let wish = match parse(&head) {
        Ok(wish) => wish,
        Err(status) => return refuse(&mut client, status).await,
    };
    let (Wish::Tunnel { to: url } | Wish::Plain { url, .. }) = &wish;
    let mut server = match timeout(CONNECT_TIME, judge.dial(url)).await {
        Ok(Ok(server)) => server,
        Ok(Err(status)) => return refuse(&mut client, status).await,
        Err(_) => return refuse(&mut client, "504 Gateway Timeout").await,
    };
    match &wish {
        Wish::Tunnel { .. } => {
            client
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?
        }
        Wish::Plain { method, url } => server.write_all(&rewritten(method, url, &head)).await?,
    }
    let (mut from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let mut from_server = from_server.take(MAX_BYTES);
    let upwards = async {
        // What follows a plain request on the same connection was not judged.
        if matches!(wish, Wish::Tunnel { .. }) {
            let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            let _ = to_server.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = upwards => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
    to_client.shutdown().await
}

/// The bytes up to the empty line. What comes after it is not read.
async fn read_head(client: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // Byte by byte, so that the first bytes of a tunnel stay where they are; a browser's heads are small.
        head.push(client.read_u8().await?);
    }
    String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn parse(head: &str) -> Result<Wish, Refused> {
    const BAD: Refused = "400 Bad Request";
    let line = head.lines().next().unwrap_or_default();
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD);
    };
    if method == "CONNECT" {
        let has_port = target
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let to = Url::parse(&format!("https://{target}/")).map_err(|_| BAD)?;
        return if has_port && to.path() == "/" {
            Ok(Wish::Tunnel { to })
        } else {
            Err(BAD)
        };
    }
    if !matches!(method, "GET" | "HEAD") {
        return Err("405 Method Not Allowed");
    }
    let url = Url::parse(target).map_err(|_| BAD)?;
    if url.scheme() != "http" {
        return Err(BAD);
    }
    Ok(Wish::Plain {
        method: method.to_owned(),
        url,
    })
}

/// The request as a server wants it: its own path, no word to the proxy, one request on the connection.
fn rewritten(method: &str, url: &Url, head: &str) -> Vec<u8> {
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for line in head.lines().skip(1) {
        let name = line
            .split(':')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let is_ours = matches!(
            name.as_str(),
            "" | "host"
                | "connection"
                | "keep-alive"
                | "content-length"
                | "transfer-encoding"
                | "upgrade"
                | "te"
        );
        if !is_ours && !name.starts_with("proxy-") {
            request.push_str(line);
            request.push_str("\r\n");
        }
    }
    request.push_str("\r\n");
    request.into_bytes()
}

struct Judge {
    guard: Guard,
    resolver: Arc<dyn Resolver>,
}

impl Judge {
    /// A connection to one of the judged addresses of `url`.
    async fn dial(&self, url: &Url) -> Result<TcpStream, Refused> {
        const REFUSED: Refused = "403 Forbidden";
        const UNREACHABLE: Refused = "502 Bad Gateway";
        self.guard.judge_url(url).map_err(|_| REFUSED)?;
        let port = url.port_or_known_default().ok_or(REFUSED)?;
        let addresses: Vec<IpAddr> = match url.host().ok_or(REFUSED)? {
            Host::Ipv4(address) => vec![address.into()],
            Host::Ipv6(address) => vec![address.into()],
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                let answer = self.resolver.resolve(name).await;
                judge_answer(name, answer, !self.guard.is_listed(url)).map_err(|_| REFUSED)?
            }
        };
        for address in addresses {
            if let Ok(server) = TcpStream::connect((address, port)).await {
                return Ok(server);
            }
        }
        Err(UNREACHABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_head_makes_it_panic_or_smuggles_a_line(
            line in "(GET|HEAD|CONNECT|POST) \\PC{0,60} HTTP/1.1",
            name in "[a-zA-Z-]{1,12}",
            value in "\\PC{0,30}",
        ) {
            let head = format!("{line}\r\n{name}: {value}\r\n\r\n");
            if let Ok(Wish::Plain { method, url }) = parse(&head) {
                let request = String::from_utf8(rewritten(&method, &url, &head)).expect("text");
                proptest::prop_assert!(request.lines().count() <= 5, "{request}");
                proptest::prop_assert!(request.ends_with("\r\n\r\n"), "{request}");
            }
        }
    }
}
