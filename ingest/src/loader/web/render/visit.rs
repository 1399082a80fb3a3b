//! One page in a browser: gives it the bytes, lets its scripts run until they are quiet, and reads what they made.
//!
//! Each request of a script is held in the browser until its host has time for it, as if we sent it ourselves.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use url::Url;

use super::browser::{Browser, BrowserError, Event};
use crate::loader::web::politeness::{Permit, Politeness};

/// What the scripts of one page may ask for.
const MAX_REQUESTS: u32 = 150;

/// A page that never comes to rest is read as it is after this share of its time.
const SETTLE_SHARE: f64 = 0.6;

/// Says of an address whether scripts of a page may ask for it.
pub(in super::super) type MayAsk<'a> = &'a (dyn Fn(&Url) -> bool + Send + Sync);

/// What scripts of a page may ask for, and how fast.
#[derive(Clone, Copy)]
pub(in super::super) struct Manners<'a> {
    pub(in super::super) may_ask: MayAsk<'a>,
    /// Of all hosts.
    pub(in super::super) politeness: &'a Politeness,
    /// The pause between requests that the page's own site, or the owner of the source, wishes for.
    pub(in super::super) delay: Duration,
}

/// A page to render.
pub(super) struct Visit<'a> {
    pub(super) url: &'a Url,
    pub(super) content_type: &'a str,
    pub(super) html: &'a Bytes,
    pub(super) manners: Manners<'a>,
    pub(super) max_bytes: usize,
    pub(super) timeout: Duration,
}

/// What becomes of a request that the browser wants to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The page itself: answered with the bytes we have.
    Page,
    /// Answered with nothing, because scripts wait for it and no text comes of it.
    Nothing,
    /// Sent through the proxy.
    Send,
    /// The document stays the one it is.
    Stay,
    Block,
}

impl Visit<'_> {
    /// The page after its scripts ran. On an error the browser is in an unknown state.
    pub(super) async fn run(&self, browser: &mut Browser) -> Result<Bytes, BrowserError> {
        browser.forget_events();
        let settle_by = Instant::now() + self.timeout.mul_f64(SETTLE_SHARE);
        let context = browser
            .call(None, "Target.createBrowserContext", json!({}))
            .await?;
        let context_id = text(&context["browserContextId"]);
        let target = json!({"url": "about:blank", "browserContextId": context_id});
        let target = browser.call(None, "Target.createTarget", target).await?;
        let target_id = text(&target["targetId"]);
        let attach = json!({"targetId": target_id, "flatten": true});
        let session = browser.call(None, "Target.attachToTarget", attach).await?;
        let session = text(&session["sessionId"]);
        let in_page = Some(session.as_str());
        for (method, params) in [
            ("Page.enable", json!({})),
            ("Page.setLifecycleEventsEnabled", json!({"enabled": true})),
            ("Network.enable", json!({})),
            ("Network.setBypassServiceWorker", json!({"bypass": true})),
            ("Fetch.enable", json!({"patterns": [{"urlPattern": "*"}]})),
        ] {
            browser.call(in_page, method, params).await?;
        }
        browser.forget_events();
        browser
            .tell(in_page, "Page.navigate", json!({"url": self.url.as_str()}))
            .await?;
        self.settle(browser, &session, &target_id, settle_by).await?;
        let root = browser
            .call(in_page, "DOM.getDocument", json!({"depth": 0}))
            .await?;
        let node = json!({"nodeId": root["root"]["nodeId"]});
        let rendered = browser.call(in_page, "DOM.getOuterHTML", node).await?;
        let context = json!({"browserContextId": context_id});
        browser
            .call(None, "Target.disposeBrowserContext", context)
            .await?;
        let html = text(&rendered["outerHTML"]);
        if html.len() > self.max_bytes {
            return Err(BrowserError::TooLarge);
        }
        Ok(html.into())
    }

    /// Serves the page's requests until none is left for a while, or until `settle_by`.
    async fn settle(
        &self,
        browser: &mut Browser,
        session: &str,
        main_frame: &str,
        settle_by: Instant,
    ) -> Result<(), BrowserError> {
        let mut requests = 0;
        let mut is_served = false;
        let mut held: JoinSet<(Held, Option<Permit>)> = JoinSet::new();
        let mut under_way: HashMap<String, Permit> = HashMap::new();
        loop {
            let event = tokio::select! {
                event = browser.next_event() => event?,
                Some(granted) = held.join_next() => {
                    let (request, permit) = granted.map_err(std::io::Error::other)?;
                    let verdict = match &permit {
                        Some(_) => Verdict::Send,
                        // What the page would say with it is not known.
                        None if self.is_own(&request.url) => return Err(BrowserError::Held),
                        None => Verdict::Block,
                    };
                    under_way.extend(request.network_id.zip(permit));
                    self.answer(browser, session, &request.id, verdict).await?;
                    continue;
                }
                () = sleep_until(settle_by) => {
                    return match (is_served, held.is_empty()) {
                        (true, true) => Ok(()),
                        (true, false) => Err(BrowserError::Held),
                        (false, _) => Err(BrowserError::Ended),
                    };
                }
            };
            match event.method.as_str() {
                "Fetch.requestPaused" => {
                    requests += 1;
                    let asked = Asked {
                        page: self.url,
                        main_frame,
                        is_served,
                        requests,
                    };
                    let verdict = judge(&event, &asked, self.manners.may_ask);
                    is_served |= verdict == Verdict::Page;
                    if verdict == Verdict::Send
                        && let Some(request) = Held::of(&event)
                    {
                        // One that was led on waits anew, and in nobody's way.
                        request.network_id.as_ref().map(|id| under_way.remove(id));
                        held.spawn(self.permit(request, settle_by));
                        continue;
                    }
                    self.answer(browser, session, &event.params["requestId"], verdict)
                        .await?;
                }
                "Network.loadingFinished" | "Network.loadingFailed" => {
                    under_way.remove(event.params["requestId"].as_str().unwrap_or_default());
                }
                "Page.lifecycleEvent"
                    if is_served
                        && held.is_empty()
                        && event.params["name"] == "networkIdle"
                        && event.params["frameId"] == *main_frame =>
                {
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.url.origin()
    }

    /// Waits until the host of a request has time for it; no permit if it has none before `until`.
    fn permit(
        &self,
        request: Held,
        until: Instant,
    ) -> impl Future<Output = (Held, Option<Permit>)> + Send + 'static {
        let politeness = self.manners.politeness.clone();
        let is_own = request.url.origin() == self.url.origin();
        let delay = if is_own {
            self.manners.delay
        } else {
            Duration::ZERO
        };
        async move {
            let permit = politeness.acquire_by(&request.url, delay, until).await;
            (request, permit)
        }
    }

    async fn answer(
        &self,
        browser: &mut Browser,
        session: &str,
        request_id: &Value,
        verdict: Verdict,
    ) -> Result<(), BrowserError> {
        let fulfil = |content_type: &str, body: &[u8]| {
            json!({
                "requestId": request_id,
                "responseCode": 200,
                "responseHeaders": [
                    {"name": "Content-Type", "value": content_type},
                    {"name": "Access-Control-Allow-Origin", "value": "*"},
                ],
                "body": STANDARD.encode(body),
            })
        };
        let fail = |reason: &str| json!({"requestId": request_id, "errorReason": reason});
        let (method, params) = match verdict {
            Verdict::Page => ("Fetch.fulfillRequest", fulfil(self.content_type, self.html)),
            Verdict::Nothing => ("Fetch.fulfillRequest", fulfil("text/css", b"")),
            Verdict::Send => ("Fetch.continueRequest", json!({"requestId": request_id})),
            Verdict::Stay => ("Fetch.failRequest", fail("Aborted")),
            Verdict::Block => ("Fetch.failRequest", fail("BlockedByClient")),
        };
        browser.tell(Some(session), method, params).await?;
        Ok(())
    }
}

/// A request that waits for its host to have time.
struct Held {
    /// Of the pause that the browser makes for us.
    id: Value,
    /// Of the request, as events about its end name it; preflights have none.
    network_id: Option<String>,
    url: Url,
}

impl Held {
    fn of(event: &Event) -> Option<Self> {
        Some(Self {
            id: event.params["requestId"].clone(),
            network_id: event.params["networkId"].as_str().map(str::to_owned),
            url: Url::parse(event.params["request"]["url"].as_str()?).ok()?,
        })
    }
}

/// What a request of a page is judged by.
struct Asked<'a> {
    page: &'a Url,
    main_frame: &'a str,
    /// Whether the page itself was given already.
    is_served: bool,
    /// This one counted.
    requests: u32,
}

fn judge(event: &Event, asked: &Asked<'_>, may_ask: MayAsk<'_>) -> Verdict {
    let request = &event.params["request"];
    let url = request["url"].as_str().and_then(|url| Url::parse(url).ok());
    let is_own = url
        .as_ref()
        .is_some_and(|url| url.origin() == asked.page.origin());
    let may_be_sent = asked.requests <= MAX_REQUESTS
        && url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && may_ask(&url));
    let is_main = event.params["frameId"] == *asked.main_frame;
    let method = request["method"].as_str().unwrap_or_default();
    match event.params["resourceType"].as_str().unwrap_or_default() {
        "Document" if is_main && !asked.is_served => Verdict::Page,
        "Document" if is_main => Verdict::Stay,
        "Stylesheet" => Verdict::Nothing,
        _ if !may_be_sent => Verdict::Block,
        "Script" if method == "GET" => Verdict::Send,
        "XHR" | "Fetch" if matches!(method, "GET" | "HEAD") => Verdict::Send,
        // Sites also read from themselves by POST. To others nothing is sent but questions.
        "XHR" | "Fetch" if is_own && matches!(method, "POST" | "OPTIONS") => Verdict::Send,
        "Preflight" if announces_a_question(request) => Verdict::Send,
        _ => Verdict::Block,
    }
}

/// Whether a preflight asks for the right to send a GET or a HEAD.
fn announces_a_question(request: &Value) -> bool {
    let headers = request["headers"].as_object();
    let announced = headers.into_iter().flatten().find_map(|(name, value)| {
        name.eq_ignore_ascii_case("access-control-request-method")
            .then(|| value.as_str().unwrap_or_default())
    });
    matches!(announced, Some("GET" | "HEAD"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str, method: &str, url: &str, frame: &str) -> Event {
        Event {
            method: "Fetch.requestPaused".into(),
            params: json!({"resourceType": kind, "frameId": frame, "request": {"method": method, "url": url}}),
        }
    }

    fn judge(event: &Event, is_served: bool, requests: u32, may_ask: MayAsk<'_>) -> Verdict {
        let page = Url::parse("https://example.org/").expect("a URL");
        let asked = Asked {
            page: &page,
            main_frame: "main",
            is_served,
            requests,
        };
        super::judge(event, &asked, may_ask)
    }

    #[test]
    fn the_page_is_given_once_and_cannot_leave() {
        let document = request("Document", "GET", "https://example.org/", "main");
        assert_eq!(judge(&document, false, 1, &|_| true), Verdict::Page);
        assert_eq!(judge(&document, true, 2, &|_| true), Verdict::Stay);
        let frame = request("Document", "GET", "https://example.org/", "other");
        assert_eq!(judge(&frame, true, 2, &|_| true), Verdict::Block);
    }

    #[test]
    fn only_what_makes_text_is_sent() {
        for (kind, method, url, expected) in [
            ("Script", "GET", "https://example.org/a.js", Verdict::Send),
            ("XHR", "GET", "https://example.org/a", Verdict::Send),
            ("Fetch", "POST", "https://example.org/graphql", Verdict::Send),
            ("Fetch", "DELETE", "https://example.org/a", Verdict::Block),
            ("Fetch", "GET", "https://other.example/a", Verdict::Send),
            ("XHR", "HEAD", "https://other.example/a", Verdict::Send),
            ("Fetch", "POST", "https://other.example/graphql", Verdict::Block),
            ("XHR", "POST", "http://example.org/downgraded", Verdict::Block),
            ("Fetch", "GET", "file:///etc/passwd", Verdict::Block),
            ("Stylesheet", "GET", "https://example.org/a.css", Verdict::Nothing),
            ("Image", "GET", "https://example.org/a.png", Verdict::Block),
            ("Ping", "POST", "https://example.org/a", Verdict::Block),
            ("Media", "GET", "https://example.org/a.mp4", Verdict::Block),
        ] {
            let event = request(kind, method, url, "main");
            assert_eq!(judge(&event, true, 2, &|_| true), expected, "{kind} {method}");
        }
    }

    #[test]
    fn other_origins_are_asked_for_leave_to_ask_only() {
        for (method, expected) in [
            ("GET", Verdict::Send),
            ("HEAD", Verdict::Send),
            ("POST", Verdict::Block),
        ] {
            let mut event = request("Preflight", "OPTIONS", "https://other.example/a", "main");
            event.params["request"]["headers"] = json!({"Access-Control-Request-Method": method});
            assert_eq!(judge(&event, true, 2, &|_| true), expected, "{method}");
        }
        let silent = request("Preflight", "OPTIONS", "https://other.example/a", "main");
        assert_eq!(judge(&silent, true, 2, &|_| true), Verdict::Block);
    }

    #[test]
    fn what_robots_forbids_is_not_sent() {
        let script = request("Script", "GET", "https://example.org/private/a.js", "main");
        let may_ask = |url: &Url| !url.path().starts_with("/private/");
        assert_eq!(judge(&script, true, 2, &may_ask), Verdict::Block);
    }

    #[test]
    fn a_page_that_asks_without_end_is_stopped() {
        let script = request("Script", "GET", "https://example.org/a.js", "main");
        assert_eq!(judge(&script, true, MAX_REQUESTS, &|_| true), Verdict::Send);
        assert_eq!(judge(&script, true, MAX_REQUESTS + 1, &|_| true), Verdict::Block);
    }
}
