//! A small website on this machine that a test changes as it goes, and that remembers how it was asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use frontdesk::secrets::token_hash;
use tokio::task::JoinHandle;

/// Stands for all addresses that have no answer of their own.
const ANYWHERE: &str = "*";

/// What an address answers.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// With an ETag, and 304 for who has it.
    pub has_validator: bool,
    pub delay: Duration,
}

impl Answer {
    /// An HTML page with a title, a sentence and links.
    pub fn page(title: &str, text: &str, links: &[&str]) -> Self {
        Self::html(title, "", text, links)
    }

    /// A page with further elements in its head.
    pub fn html(title: &str, head: &str, text: &str, links: &[&str]) -> Self {
        let links: String = links
            .iter()
            .map(|link| format!("<li><a href=\"{link}\">{link}</a></li>"))
            .collect();
        Self::of(
            "text/html; charset=utf-8",
            format!(
                "<!doctype html><html><head><title>{title}</title>{head}</head><body><nav><ul>{links}</ul></nav>\
                 <main><h1>{title}</h1><p>{text}</p></main></body></html>"
            ),
        )
    }

    pub fn of(content_type: &str, body: impl Into<String>) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: body.into(),
            has_validator: true,
            delay: Duration::ZERO,
        }
    }

    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
            has_validator: false,
            delay: Duration::ZERO,
        }
    }

    pub fn redirect(status: u16, to: &str) -> Self {
        Self::status(status).header("location", to)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn naming(mut self, path: &str) -> Self {
        self.body = self.body.replace("{path}", path);
        self
    }

    pub fn without_validator(mut self) -> Self {
        self.has_validator = false;
        self
    }

    pub fn slow(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A request as it came, and the status it got.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub status: u16,
}

#[derive(Default)]
struct Content {
    answers: BTreeMap<String, Answer>,
    /// What every page answers instead, while something is wrong.
    fault: Option<Answer>,
    asked: Vec<Asked>,
}

/// The site. Dropped, it is gone.
pub struct Site {
    pub address: SocketAddr,
    content: Arc<Mutex<Content>>,
    server: JoinHandle<()>,
}

impl Site {
    pub async fn start(pages: &[(&str, Answer)]) -> Self {
        let content: Arc<Mutex<Content>> = Arc::default();
        let router = Router::new().fallback(answer).with_state(content.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the site serves");
        });
        let site = Self {
            address,
            content,
            server,
        };
        for (path, answer) in pages {
            site.put(path, answer.clone());
        }
        site
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn put(&self, path: &str, answer: Answer) {
        lock(&self.content).answers.insert(path.to_owned(), answer);
    }

    pub fn remove(&self, path: &str) {
        lock(&self.content).answers.remove(path);
    }

    /// Every page answers this from now on, robots.txt too; none: the site is well again.
    pub fn fail_with(&self, fault: Option<Answer>) {
        lock(&self.content).fault = fault;
    }

    /// Addresses without a page answer this from now on, with their path for `{path}`.
    pub fn put_anywhere(&self, answer: Answer) {
        self.put(ANYWHERE, answer);
    }

    /// What was asked for since the last look, robots.txt, site maps and addresses that no site has aside.
    pub fn take_asked(&self) -> Vec<Asked> {
        let mut asked = self.take_all_asked();
        let is_page = |path: &str| {
            path != "/robots.txt" && !path.starts_with("/sitemap") && !path.starts_with("/no-such-page-")
        };
        asked.retain(|asked| is_page(&asked.path));
        asked
    }

    /// All that was asked for since the last look.
    pub fn take_all_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.content).asked)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(content): State<Arc<Mutex<Content>>>, request: Request) -> Response {
    let path = request
        .uri()
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    let headers: BTreeMap<String, String> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let answer = {
        let content = lock(&content);
        content
            .fault
            .clone()
            .or_else(|| content.answers.get(&path).cloned())
            .or_else(|| Some(content.answers.get(ANYWHERE)?.clone().naming(&path)))
            .unwrap_or_else(|| Answer::status(404))
    };
    tokio::time::sleep(answer.delay).await;
    let etag = format!("\"{}\"", &token_hash(&answer.body)[..16]);
    let is_known = answer.has_validator && headers.get("if-none-match") == Some(&etag);
    let status = if is_known { 304 } else { answer.status };
    lock(&content).asked.push(Asked {
        path,
        headers,
        status,
    });
    let mut response = Response::builder().status(status);
    if answer.has_validator {
        response = response.header("etag", etag);
    }
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let body = if is_known { String::new() } else { answer.body };
    response.body(Body::from(body)).expect("a response")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
