//! A small site on a loopback port that counts what it is asked, and a loader that may reach it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ingest::loader::web::{
    Answer, Credentials, FetchFailure, PageRequest, Validators, WebLoader, WebSettings,
};
use outbound::{Guard, GuardedClient, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use url::Url;

/// An answer: status line, headers, body.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn html(body: &str) -> Self {
        Self::new(200, body).header("content-type", "text/html; charset=utf-8")
    }

    pub fn text(body: &str) -> Self {
        Self::new(200, body).header("content-type", "text/plain")
    }

    pub fn redirect(status: u16, target: impl ToString) -> Self {
        Self::new(status, "").header("location", &target.to_string())
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The head of a request, in lower case but for its first line.
pub struct Seen {
    pub path: String,
    pub head: String,
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

pub struct Site {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Site {
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the port just bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let script: Arc<Script> = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log) = (script.clone(), log.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, &*script, &log).await;
                });
            }
        });
        Self { address, seen }
    }

    /// A site of fixed pages; everything else is 404, so there is no robots.txt unless it is among them.
    pub async fn of(pages: &[(&str, Reply)]) -> Self {
        let pages: HashMap<String, Reply> = pages
            .iter()
            .map(|(path, reply)| ((*path).to_owned(), reply.clone()))
            .collect();
        Self::start(move |seen| {
            pages
                .get(&seen.path)
                .cloned()
                .unwrap_or_else(|| Reply::new(404, "nothing here"))
        })
        .await
    }

    pub fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).expect("a URL")
    }

    /// The paths that were asked for, without robots.txt.
    pub fn asked(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("no test panics while holding it");
        let paths = seen.iter().map(|seen| seen.path.clone());
        paths.filter(|path| path != "/robots.txt").collect()
    }

    pub fn count(&self, path: &str) -> usize {
        let seen = self.seen.lock().expect("no test panics while holding it");
        seen.iter().filter(|seen| seen.path == path).count()
    }

    /// The head of the last request for `path`.
    pub fn head_of(&self, path: &str) -> String {
        let seen = self.seen.lock().expect("no test panics while holding it");
        let last = seen.iter().rev().find(|seen| seen.path == path);
        last.expect("the path was asked for").head.clone()
    }
}

async fn serve(mut stream: TcpStream, script: &Script, log: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    while !received.windows(4).any(|window| window == b"\r\n\r\n") {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Ok(());
        }
        received.extend_from_slice(&piece[..count]);
    }
    let head = String::from_utf8_lossy(&received).to_lowercase();
    let path = String::from_utf8_lossy(&received)
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let seen = Seen { path, head };
    let reply = script(&seen);
    log.lock().expect("no test panics while holding it").push(seen);
    let mut answer = format!(
        "HTTP/1.1 {} Status\r\ncontent-length: {}\r\nconnection: close\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    answer.push_str("\r\n");
    stream.write_all(answer.as_bytes()).await?;
    stream.write_all(&reply.body).await?;
    stream.shutdown().await
}

/// A loader whose operator listed `sites`.
pub fn loader_for(sites: &[&Site]) -> WebLoader {
    let listed = sites
        .iter()
        .map(|site| site.address.to_string().parse().expect("host:port"))
        .collect();
    let limits = Limits {
        connect: Duration::from_secs(5),
        total: Duration::from_secs(10),
        max_bytes: 100_000,
        max_redirects: 5,
    };
    let settings = WebSettings {
        user_agent: "Frontdesk/1.0 (+https://example.org/bot)".to_owned(),
        per_host_concurrency: 2,
        min_delay: Duration::ZERO,
        limits,
    };
    WebLoader::new(&GuardedClient::new(Guard::new(listed), limits), &settings).expect("a user agent")
}

/// When the last request may begin, for a test that has time.
pub fn in_time() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Fetches as a crawl without a copy and without credentials does.
pub async fn fetch(loader: &WebLoader, url: &Url) -> Result<Answer, FetchFailure> {
    fetch_with(loader, url, &Validators::default(), &Credentials::none()).await
}

pub async fn fetch_with(
    loader: &WebLoader,
    url: &Url,
    validators: &Validators,
    credentials: &Credentials,
) -> Result<Answer, FetchFailure> {
    loader
        .fetch(&PageRequest {
            url,
            validators,
            credentials,
            delay: Duration::ZERO,
            begin_until: in_time(),
            render: false,
            may_follow: &|_| true,
        })
        .await
}
