//! robots.txt as it is asked for: once per origin, and what it means when it cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::site::{Reply, Site, fetch, in_time, loader_for};

#[tokio::test]
async fn pages_that_robots_forbids_are_not_asked_for() {
    let site = Site::of(&[
        (
            "/robots.txt",
            Reply::text("User-agent: Frontdesk\nDisallow: /private\n\nUser-agent: *\nDisallow: /"),
        ),
        ("/public", Reply::html("<p>a")),
    ])
    .await;
    let loader = loader_for(&[&site]);

    let refused = fetch(&loader, &site.url("/private/a"))
        .await
        .expect_err("forbidden");
    fetch(&loader, &site.url("/public")).await.expect("allowed");

    assert_eq!(refused.code, "robots_disallowed");
    assert_eq!(site.asked(), ["/public"]);
    assert_eq!(site.count("/robots.txt"), 1);
}

#[tokio::test]
async fn many_who_ask_at_once_read_the_file_once() {
    let site = Site::of(&[("/a", Reply::html("<p>a"))]).await;
    let loader = loader_for(&[&site]);
    let url = site.url("/a");

    let fetches = (0..20).map(|_| fetch(&loader, &url));
    for answer in futures::future::join_all(fetches).await {
        answer.expect("a page");
    }

    assert_eq!(site.count("/robots.txt"), 1);
}

#[tokio::test]
async fn a_site_without_the_file_or_that_refuses_it_allows_everything() {
    for status in [400, 401, 403, 404, 410] {
        let site = Site::of(&[
            ("/robots.txt", Reply::new(status, "User-agent: *\nDisallow: /")),
            ("/a", Reply::html("<p>a")),
        ])
        .await;
        fetch(&loader_for(&[&site]), &site.url("/a"))
            .await
            .unwrap_or_else(|failure| panic!("{status}: {failure}"));
    }
}

#[tokio::test]
async fn a_site_that_cannot_say_what_it_allows_is_not_read() {
    for status in [429, 500, 503] {
        let site = Site::of(&[
            ("/robots.txt", Reply::new(status, "")),
            ("/a", Reply::html("<p>a")),
        ])
        .await;

        let failure = fetch(&loader_for(&[&site]), &site.url("/a"))
            .await
            .expect_err("unknown");

        assert_eq!(failure.code, "robots_unavailable", "{status}");
        assert_eq!(site.asked(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn an_earlier_copy_serves_while_the_site_cannot_answer() {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = is_down.clone();
    let site = Site::start(
        move |seen| match (seen.path.as_str(), down.load(Ordering::SeqCst)) {
            ("/robots.txt", true) => Reply::new(503, ""),
            ("/robots.txt", false) => Reply::text("User-agent: *\nDisallow: /private"),
            _ => Reply::html("<p>a"),
        },
    )
    .await;
    let loader = loader_for(&[&site]);
    loader.robots(&site.url("/"), in_time()).await.expect("readable");
    is_down.store(true, Ordering::SeqCst);

    let rules = loader
        .reload_robots(&site.url("/"), in_time())
        .await
        .expect("the earlier copy");

    assert_eq!(site.count("/robots.txt"), 2);
    assert!(!rules.allows(&site.url("/private")) && rules.allows(&site.url("/a")));
}

#[tokio::test]
async fn a_run_that_reloads_sees_a_change_at_once() {
    let closed = Arc::new(AtomicBool::new(false));
    let is_closed = closed.clone();
    let site = Site::start(move |seen| match seen.path.as_str() {
        "/robots.txt" if is_closed.load(Ordering::SeqCst) => Reply::text("User-agent: *\nDisallow: /"),
        "/robots.txt" => Reply::new(404, ""),
        _ => Reply::html("<p>a"),
    })
    .await;
    let loader = loader_for(&[&site]);
    fetch(&loader, &site.url("/a")).await.expect("allowed");
    closed.store(true, Ordering::SeqCst);
    fetch(&loader, &site.url("/a")).await.expect("the copy is fresh");

    loader
        .reload_robots(&site.url("/"), in_time())
        .await
        .expect("readable");

    let failure = fetch(&loader, &site.url("/a")).await.expect_err("forbidden now");
    assert_eq!(failure.code, "robots_disallowed");
}

#[tokio::test]
async fn redirects_of_the_file_are_followed_and_endless_ones_mean_that_there_is_none() {
    let site = Site::of(&[
        ("/robots.txt", Reply::redirect(301, "/real-robots.txt")),
        (
            "/real-robots.txt",
            Reply::text("User-agent: *\nDisallow: /private"),
        ),
    ])
    .await;
    let rules = loader_for(&[&site])
        .robots(&site.url("/"), in_time())
        .await
        .expect("readable");
    assert!(!rules.allows(&site.url("/private")));

    let endless = Site::of(&[("/robots.txt", Reply::redirect(301, "/robots.txt"))]).await;
    let rules = loader_for(&[&endless])
        .robots(&endless.url("/"), in_time())
        .await
        .expect("none");
    assert!(rules.allows(&endless.url("/private")));
}

#[tokio::test]
async fn a_redirect_of_the_file_into_a_private_place_is_refused() {
    let inside = Site::of(&[("/robots.txt", Reply::text(""))]).await;
    let target = inside.url("/robots.txt");
    let site = Site::of(&[("/robots.txt", Reply::redirect(302, target))]).await;

    let failure = loader_for(&[&site])
        .robots(&site.url("/"), in_time())
        .await
        .expect_err("refused");

    assert_eq!(failure.code, "robots_unavailable");
    assert!(
        failure.message.contains("127.0.0.1 is a loopback address"),
        "{}",
        failure.message
    );
    assert_eq!(inside.count("/robots.txt"), 0);
}
