//! Pages that scripts fill. These tests need a Chromium, and are left out unless they are asked for: scripts/run-tests asks
//! where there is one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ingest::loader::web::{
    Answer, Credentials, FetchFailure, PageRequest, RenderSettings, Renderer, Validators,
};
use outbound::Guard;

use crate::site::{Reply, Site, in_time, loader_for};

/// `FRONTDESK_TEST_CHROMIUM`, or the one that this machine has.
#[expect(clippy::disallowed_methods, reason = "a test has no configuration")]
fn chromium() -> PathBuf {
    if let Some(named) = std::env::var_os("FRONTDESK_TEST_CHROMIUM") {
        return named.into();
    }
    let places = [
        "/usr/bin/chromium",
        "/usr/bin/chromium-browser",
        "/usr/bin/google-chrome",
    ];
    let found = places.iter().map(PathBuf::from).find(|place| place.exists());
    found.expect("these tests need a Chromium; FRONTDESK_TEST_CHROMIUM says where one is")
}

struct Rendering {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Rendering {
    fn on_this_machine() -> Self {
        Self {
            program: chromium(),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    async fn page(&self, site: &Site, path: &str, timeout: Duration) -> Result<String, FetchFailure> {
        self.page_with(site, path, timeout, &[site], &Credentials::none())
            .await
    }

    async fn page_with(
        &self,
        site: &Site,
        path: &str,
        timeout: Duration,
        listed: &[&Site],
        credentials: &Credentials,
    ) -> Result<String, FetchFailure> {
        let guard = Guard::new(
            listed
                .iter()
                .map(|site| site.address.to_string().parse().expect("host:port"))
                .collect(),
        );
        let renderer = Renderer::new(
            guard,
            RenderSettings {
                program: self.program.clone(),
                work_dir: self.folder.path().to_owned(),
                user_agent: "Frontdesk/1.0".to_owned(),
                // Tests may run as root, where Chromium has no sandbox.
                sandbox: false,
                timeout,
                browsers: 1,
                max_bytes: 1 << 20,
            },
        );
        let answer = loader_for(listed)
            .with_renderer(renderer)
            .fetch(&PageRequest {
                url: &site.url(path),
                validators: &Validators::default(),
                credentials,
                delay: Duration::ZERO,
                begin_until: in_time(),
                render: true,
                may_follow: &|_| true,
            })
            .await?;
        match answer {
            Answer::Page(page) => Ok(String::from_utf8(page.bytes.to_vec()).expect("UTF-8")),
            other => panic!("not a page: {other:?}"),
        }
    }
}

/// Enough on a machine that does ten other things.
const TIME: Duration = Duration::from_secs(120);

#[tokio::test]
#[ignore = "needs a Chromium"]
async fn what_scripts_write_is_part_of_the_page() {
    let rendering = Rendering::on_this_machine();
    let page = "<!doctype html><title>Shop</title><div id=app>Loading</div><script src=/app.js></script>";
    let script = "fetch('/data.json').then(r => r.json()).then(d => { document.title = 'Ready'; app.textContent = d.text; });";
    let site = Site::of(&[
        ("/", Reply::html(page)),
        (
            "/app.js",
            Reply::new(200, script).header("content-type", "text/javascript"),
        ),
        (
            "/data.json",
            Reply::new(200, r#"{"text":"Goods may be returned – within 30 days."}"#)
                .header("content-type", "application/json"),
        ),
    ])
    .await;

    let html = rendering.page(&site, "/", TIME).await.expect("rendered");

    assert!(html.contains("Goods may be returned – within 30 days."), "{html}");
    assert!(!html.contains("Loading"), "{html}");
    assert_eq!(site.count("/"), 1, "the page itself is fetched by us alone");
}

#[tokio::test]
#[ignore = "needs a Chromium"]
async fn scripts_reach_no_private_place_and_carry_no_credential() {
    let rendering = Rendering::on_this_machine();
    let inside = Site::of(&[("/secret", Reply::text("internal"))]).await;
    let secret = inside.url("/secret");
    let port = inside.address.port();
    let page = format!(
        "<!doctype html><div id=out></div><script>\
         const tries = ['{secret}', 'http://localhost:{port}/secret', 'http://169.254.169.254/', 'file:///etc/passwd', '/api'];\
         Promise.all(tries.map(t => fetch(t, {{mode: 'no-cors'}}).then(() => 'reached', () => 'refused')))\
           .then(r => out.textContent = 'done ' + r.length);\
         const image = new Image(); image.src = '{secret}';\
         const frame = document.createElement('iframe'); frame.src = '{secret}'; document.body.append(frame);\
         try {{ new WebSocket('ws://127.0.0.1:{port}/socket'); }} catch {{}}\
         navigator.sendBeacon('{secret}');\
         </script>"
    );
    let site = Site::of(&[("/", Reply::html(&page)), ("/api", Reply::text("own"))]).await;
    let headers = [("x-key".to_owned(), "secret".to_owned())];
    let credentials = Credentials::new(&site.url("/"), &headers, None).expect("valid");

    let html = rendering
        .page_with(&site, "/", TIME, &[&site], &credentials)
        .await
        .expect("rendered");

    assert!(html.contains("done 5"), "{html}");
    assert_eq!(inside.asked(), Vec::<String>::new());
    assert!(site.head_of("/").contains("x-key: secret"));
    assert!(
        !site.head_of("/api").contains("x-key"),
        "{}",
        site.head_of("/api")
    );
}

#[tokio::test]
#[ignore = "needs a Chromium"]
async fn scripts_do_not_ask_for_what_robots_forbids() {
    let rendering = Rendering::on_this_machine();
    let page = "<!doctype html><p id=out></p><script>\
                fetch('/private/a').then(() => out.textContent = 'got', () => out.textContent = 'refused')</script>";
    let site = Site::of(&[
        ("/robots.txt", Reply::text("User-agent: *\nDisallow: /private/")),
        ("/", Reply::html(page)),
        ("/private/a", Reply::text("private")),
    ])
    .await;

    let html = rendering.page(&site, "/", TIME).await.expect("rendered");

    assert!(html.contains("refused"), "{html}");
    assert_eq!(site.count("/private/a"), 0);
}

#[tokio::test]
#[ignore = "needs a Chromium"]
async fn what_scripts_ask_for_keeps_the_pace_that_the_site_wishes_for() {
    let rendering = Rendering::on_this_machine();
    let page = "<!doctype html><p id=out></p><script>\
                Promise.all(['/a', '/b', '/c'].map(path => fetch(path).then(answer => answer.text())))\
                  .then(texts => out.textContent = texts.join(' '))</script>";
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = times.clone();
    let site = Site::start(move |seen| {
        if seen.path != "/robots.txt" {
            noted
                .lock()
                .expect("no test panics while holding it")
                .push(Instant::now());
        }
        match seen.path.as_str() {
            "/robots.txt" => Reply::text("User-agent: *\nCrawl-delay: 1"),
            "/" => Reply::html(page),
            path => Reply::text(path),
        }
    })
    .await;

    let html = rendering.page(&site, "/", TIME).await.expect("rendered");

    assert!(html.contains("/a /b /c"), "{html}");
    let times = times.lock().expect("no test panics while holding it").clone();
    assert_eq!(times.len(), 4, "the page and what it asks for");
    for pair in times.windows(2) {
        let apart = pair[1] - pair[0];
        assert!(apart >= Duration::from_millis(800), "{apart:?} apart");
    }
}

#[tokio::test]
#[ignore = "needs a Chromium"]
async fn a_page_whose_scripts_the_site_has_no_time_for_is_not_taken_for_what_it_is_without_them() {
    let rendering = Rendering::on_this_machine();
    let page = "<!doctype html><p id=out>Loading</p><script>\
                Promise.all([...Array(12).keys()].map(n => fetch('/a?' + n))).then(() => out.textContent = 'got')</script>";
    let site = Site::of(&[
        ("/robots.txt", Reply::text("User-agent: *\nCrawl-delay: 2")),
        ("/", Reply::html(page)),
    ])
    .await;

    let failure = rendering
        .page(&site, "/", Duration::from_secs(20))
        .await
        .expect_err("not in time");

    assert_eq!(failure.code, "render_too_slow", "{failure}");
}

#[tokio::test]
#[ignore = "needs a Chromium"]
async fn a_page_that_wants_to_leave_stays_the_page_it_is() {
    let rendering = Rendering::on_this_machine();
    let page = "<!doctype html><p>here</p><script>setTimeout(() => location = '/elsewhere', 0)</script>";
    let site = Site::of(&[("/", Reply::html(page)), ("/elsewhere", Reply::html("<p>there"))]).await;

    let html = rendering.page(&site, "/", TIME).await.expect("rendered");

    assert!(html.contains("<p>here</p>"), "{html}");
    assert_eq!(site.count("/elsewhere"), 0);
}

#[tokio::test]
#[ignore = "needs a Chromium"]
async fn a_page_whose_scripts_never_end_fails_alone() {
    let rendering = Rendering::on_this_machine();
    let page = "<!doctype html><p>x<script>for (;;) {}</script>";
    let site = Site::of(&[("/", Reply::html(page))]).await;

    let failure = rendering
        .page(&site, "/", Duration::from_secs(5))
        .await
        .expect_err("endless");

    assert_eq!(failure.code, "render_timed_out");
}

#[tokio::test]
#[ignore = "needs a Chromium"]
async fn a_page_that_grows_without_end_fails_alone() {
    let rendering = Rendering::on_this_machine();
    let page = "<!doctype html><p id=p>x<script>p.textContent = 'a'.repeat(9 << 20)</script>";
    let site = Site::of(&[("/", Reply::html(page))]).await;

    let failure = rendering.page(&site, "/", TIME).await.expect_err("too large");

    assert_eq!(failure.code, "too_large");
}

#[tokio::test]
async fn without_a_browser_a_page_to_be_rendered_fails_with_its_reason() {
    let site = Site::of(&[("/", Reply::html("<p>x"))]).await;

    let failure = loader_for(&[&site])
        .fetch(&PageRequest {
            url: &site.url("/"),
            validators: &Validators::default(),
            credentials: &Credentials::none(),
            delay: Duration::ZERO,
            begin_until: in_time(),
            render: true,
            may_follow: &|_| true,
        })
        .await
        .expect_err("no browser");

    assert_eq!(failure.code, "render_unavailable");
}
