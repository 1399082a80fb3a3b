//! A scripted HTTP/1.1 server on a loopback port, raw enough to drip, lie and hang, that remembers what it was sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use outbound::{Guard, GuardedClient, HostPort, Limits, Resolver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// What a server does once it has read a request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Writes these bytes and closes.
    Raw(Vec<u8>),
    /// Writes the bytes, then one more every 20 ms, for ever.
    Drip(Vec<u8>),
    /// Writes the bytes, then nothing, and keeps the connection.
    Hang(Vec<u8>),
    /// Waits, then writes and closes.
    After(Duration, Vec<u8>),
}

/// The first line, headers and body of a request, as received.
pub(crate) type Seen = String;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the port just bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let log = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log) = (script.clone(), log.clone());
                tokio::spawn(async move {
                    // A client that hangs up early is part of the tests.
                    let _ = serve(stream, &*script, &log).await;
                });
            }
        });
        Self { address, seen }
    }

    /// A server that gives every request the same answer.
    pub(crate) async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).expect("a URL")
    }

    pub(crate) fn listed(&self) -> HostPort {
        self.address.to_string().parse().expect("an address is host:port")
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panics while holding it").clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &(impl Fn(&str) -> Reply + Sync),
    log: &Mutex<Vec<Seen>>,
) -> io::Result<()> {
    let request = read_request(&mut stream).await?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    log.lock().expect("no test panics while holding it").push(request);
    match script(&path) {
        Reply::Raw(bytes) => stream.write_all(&bytes).await?,
        Reply::Drip(bytes) => {
            stream.write_all(&bytes).await?;
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.write_all(b".").await?;
            }
        }
        Reply::Hang(bytes) => {
            stream.write_all(&bytes).await?;
            std::future::pending::<()>().await;
        }
        Reply::After(delay, bytes) => {
            tokio::time::sleep(delay).await;
            stream.write_all(&bytes).await?;
        }
    }
    stream.shutdown().await
}

async fn read_request(stream: &mut TcpStream) -> io::Result<Seen> {
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            break;
        }
        received.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&received);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        if body.len() >= length.unwrap_or(0) {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&received).into_owned())
}

/// A plain answer with a length.
pub(crate) fn ok(content_type: &str, body: &[u8]) -> Reply {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    Reply::Raw([head.as_bytes(), body].concat())
}

pub(crate) fn redirect(status: u16, target: impl std::fmt::Display) -> Reply {
    let head = format!(
        "HTTP/1.1 {status} Elsewhere\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    Reply::Raw(head.into_bytes())
}

/// Small limits, so that tests which run into them are quick.
pub(crate) fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(5),
        total: Duration::from_secs(20),
        max_bytes: 1000,
        max_redirects: 5,
    }
}

/// A client whose operator listed `servers`.
pub(crate) fn client_for(servers: &[&Server]) -> GuardedClient {
    GuardedClient::new(
        Guard::new(servers.iter().map(|server| server.listed()).collect()),
        limits(),
    )
}

/// What a name resolves to, question by question.
type Turns = Vec<Vec<IpAddr>>;

/// A resolver that knows the given names, counts its questions, and gives the answers of each name in turn; the last
/// one stays.
pub(crate) struct Names {
    answers: Mutex<Vec<(&'static str, Turns)>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Names {
    pub(crate) fn new(answers: &[(&'static str, &[&[&str]])]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().expect("an address")).collect();
        let answers = answers
            .iter()
            .map(|(name, turns)| (*name, turns.iter().map(parse).collect()))
            .collect();
        Arc::new(Self {
            answers: Mutex::new(answers),
            asked: Mutex::default(),
        })
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .expect("no test panics while holding it")
            .clone()
    }
}

impl Resolver for Names {
    fn resolve(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked
            .lock()
            .expect("no test panics while holding it")
            .push(host.to_owned());
        let mut answers = self.answers.lock().expect("no test panics while holding it");
        let turns = answers
            .iter_mut()
            .find(|(name, _)| *name == host)
            .map(|(_, turns)| turns);
        let answer = match turns {
            Some(turns) if turns.len() > 1 => Ok(turns.remove(0)),
            Some(turns) => Ok(turns[0].clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        Box::pin(async move { answer })
    }
}
