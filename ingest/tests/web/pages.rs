//! One page: conditional requests, redirects, credentials, and a reason for everything that brings no page.

use ingest::Format;
use ingest::loader::web::{Answer, Credentials, Page, PageRequest, Retry, Validators};
use std::time::Duration;

use crate::site::{Reply, Site, fetch, fetch_with, in_time, loader_for};

fn page(answer: Answer) -> Page {
    match answer {
        Answer::Page(page) => *page,
        other => panic!("not a page: {other:?}"),
    }
}

#[tokio::test]
async fn a_page_comes_with_what_its_headers_say() {
    let reply = Reply::new(200, "<!doctype html><p>Gr\u{fc}\u{df}e")
        .header("content-type", "text/HTML; charset=ISO-8859-1")
        .header("etag", "\"v1\"")
        .header("last-modified", "Fri, 20 Nov 2026 15:00:00 GMT")
        .header("x-robots-tag", "noindex")
        .header("link", "</main>; rel=\"canonical\"");
    let site = Site::of(&[("/a", reply)]).await;

    let page = page(
        fetch(&loader_for(&[&site]), &site.url("/a"))
            .await
            .expect("a page"),
    );

    assert_eq!(page.final_url, site.url("/a"));
    assert_eq!(page.media_type.as_deref(), Some("text/html"));
    assert_eq!(page.hints().charset.as_deref(), Some("iso-8859-1"));
    assert_eq!(page.validators.etag.as_deref(), Some("\"v1\""));
    assert!(page.directives.noindex && !page.directives.nofollow);
    assert_eq!(page.directives.canonical, Some(site.url("/main")));
    assert_eq!(page.format(), Ok(Format::Html));
    let head = site.head_of("/a");
    assert!(
        head.contains("user-agent: frontdesk/1.0 (+https://example.org/bot)"),
        "{head}"
    );
    assert!(!head.contains("if-none-match"), "{head}");
}

#[tokio::test]
async fn a_copy_that_still_holds_is_not_sent_again() {
    let site = Site::start(|seen| match seen.head.contains("if-none-match: \"v1\"") {
        true => Reply::new(304, ""),
        false => Reply::html("<p>text").header("etag", "\"v1\""),
    })
    .await;
    let loader = loader_for(&[&site]);
    let first = page(fetch(&loader, &site.url("/a")).await.expect("a page"));

    let again = fetch_with(&loader, &site.url("/a"), &first.validators, &Credentials::none()).await;

    assert!(matches!(again, Ok(Answer::NotModified)), "{again:?}");
}

#[tokio::test]
async fn a_304_to_a_request_without_validators_is_no_page() {
    let site = Site::of(&[("/a", Reply::new(304, ""))]).await;

    let failure = fetch(&loader_for(&[&site]), &site.url("/a"))
        .await
        .expect_err("no page");

    assert_eq!(failure.code, "http_status");
}

#[tokio::test]
async fn stored_validators_that_are_no_headers_are_not_sent() {
    let site = Site::of(&[("/a", Reply::html("<p>text"))]).await;
    let validators = Validators {
        etag: Some("\"v1\"\r\nx-injected: 1".into()),
        last_modified: None,
    };

    let answer = fetch_with(
        &loader_for(&[&site]),
        &site.url("/a"),
        &validators,
        &Credentials::none(),
    )
    .await;

    page(answer.expect("a page"));
    assert!(!site.head_of("/a").contains("injected"));
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed_and_the_page_is_known_by_its_final_address() {
    let site = Site::of(&[
        ("/old", Reply::redirect(301, "/middle?utm_source=x")),
        (
            "/middle?utm_source=x",
            Reply::redirect(302, "/new?utm_source=x#top"),
        ),
        ("/new?utm_source=x", Reply::html("<p>text")),
    ])
    .await;

    let page = page(
        fetch(&loader_for(&[&site]), &site.url("/old"))
            .await
            .expect("a page"),
    );

    assert_eq!(page.final_url, site.url("/new"));
}

#[tokio::test]
async fn a_redirect_to_another_origin_is_reported_and_not_followed() {
    let other = Site::of(&[("/there", Reply::html("<p>other"))]).await;
    let site = Site::of(&[("/away", Reply::redirect(302, other.url("/there#x")))]).await;

    let answer = fetch(&loader_for(&[&site, &other]), &site.url("/away")).await;

    let Ok(Answer::Redirected { to }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(to, other.url("/there"));
    assert_eq!(other.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_redirect_out_of_scope_or_into_what_robots_forbids_is_not_followed() {
    let site = Site::of(&[
        (
            "/robots.txt",
            Reply::text("User-agent: frontdesk\nDisallow: /secret"),
        ),
        ("/a", Reply::redirect(302, "/secret")),
        ("/b", Reply::redirect(302, "/outside")),
    ])
    .await;
    let loader = loader_for(&[&site]);
    for (path, target) in [("/a", "/secret"), ("/b", "/outside")] {
        let answer = loader
            .fetch(&PageRequest {
                url: &site.url(path),
                validators: &Validators::default(),
                credentials: &Credentials::none(),
                delay: Duration::ZERO,
                begin_until: in_time(),
                render: false,
                may_follow: &|target| target.path() != "/outside",
            })
            .await;

        let Ok(Answer::Redirected { to }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(to, site.url(target));
    }
    assert_eq!(site.asked(), ["/a", "/b"]);
}

#[tokio::test]
async fn credentials_go_to_the_configured_origin_only() {
    let site = Site::of(&[("/a", Reply::html("<p>a"))]).await;
    let other = Site::of(&[("/a", Reply::html("<p>a"))]).await;
    let loader = loader_for(&[&site, &other]);
    let headers = [("x-key".to_owned(), "secret".to_owned())];
    let credentials = Credentials::new(&site.url("/"), &headers, Some(("u", "secret"))).expect("valid");

    for one in [&site, &other] {
        fetch_with(&loader, &one.url("/a"), &Validators::default(), &credentials)
            .await
            .expect("a page");
    }

    let head = site.head_of("/a");
    assert!(
        head.contains("x-key: secret") && head.contains("authorization: basic "),
        "{head}"
    );
    assert!(!other.head_of("/a").contains("secret") && !other.head_of("/a").contains("authorization"));
    assert!(
        !site.head_of("/robots.txt").contains("secret"),
        "the rules serve every source of the site"
    );
}

#[tokio::test]
async fn what_brings_no_page_has_a_stable_code() {
    let image = Reply::new(200, "svg").header("content-type", "image/svg+xml");
    let huge = Reply::html(&"a".repeat(100_001));
    let site = Site::of(&[
        ("/401", Reply::new(401, "")),
        ("/403", Reply::new(403, "")),
        ("/418", Reply::new(418, "")),
        ("/500", Reply::new(500, "")),
        ("/image", image),
        ("/huge", huge),
        ("/loop", Reply::redirect(302, "/loop")),
        ("/broken", Reply::redirect(302, "http://[")),
        ("/mail", Reply::redirect(302, "mailto:a@example.org")),
    ])
    .await;
    let loader = loader_for(&[&site]);
    for (path, code, retries) in [
        ("/401", "http_401", false),
        ("/403", "http_403", false),
        ("/418", "http_status", false),
        ("/500", "server_error", true),
        ("/image", "unsupported_type", false),
        ("/huge", "too_large", false),
        ("/loop", "too_many_redirects", false),
        ("/broken", "bad_redirect", false),
        ("/mail", "bad_redirect", false),
    ] {
        let failure = fetch(&loader, &site.url(path)).await.expect_err(path);
        assert_eq!(failure.code, code, "{path}");
        assert_eq!(failure.retry != Retry::Never, retries, "{path}");
        assert!(
            failure.message.ends_with('.') && !failure.message.contains("127.0.0.1"),
            "{failure}"
        );
    }
    for (path, status) in [("/404", 404)] {
        let answer = fetch(&loader, &site.url(path)).await;
        assert!(
            matches!(answer, Ok(Answer::Gone { status: found }) if found == status),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn places_that_are_not_public_are_refused_as_such_before_robots_is_asked() {
    let inside = Site::of(&[]).await;
    let loader = loader_for(&[]);
    let port = inside.address.port();
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://localhost:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ] {
        let failure = fetch(&loader, &url.parse().expect("a URL"))
            .await
            .expect_err("refused");
        assert_eq!(
            (failure.code, failure.retry),
            ("url_not_public", Retry::Never),
            "{url}"
        );
    }
    assert_eq!(inside.count("/robots.txt"), 0);
}

#[tokio::test]
async fn a_host_that_limits_us_is_left_alone() {
    let busy = Reply::new(429, "").header("retry-after", "90");
    let site = Site::of(&[("/a", busy)]).await;
    let loader = loader_for(&[&site]);

    let failure = fetch(&loader, &site.url("/a")).await.expect_err("limited");

    let pause = Duration::from_secs(90);
    assert_eq!(
        (failure.code, failure.retry),
        ("http_429", Retry::After(Some(pause)))
    );
    let left = loader.politeness().pause_of(&site.url("/b"));
    assert!(left > Duration::from_secs(80) && left <= pause, "{left:?}");
}
