//! A run stays within its source: hosts, paths, depth and robots.txt; secrets stay with their origin; traps end.

use std::collections::BTreeMap;
use std::path::Path;

use frontdesk::knowledge::sync::{Note, RunState};
use serde_json::json;

use super::desk::{Desk, counts, options_for, service_for, website};
use super::site::{Answer, Site};

#[tokio::test]
async fn pictures_that_pages_link_to_are_read_where_somebody_is_set_up_to_and_else_told_of() {
    // The head of a picture, as far as it is text.
    let picture = "GIF89a\x40\x01\x40\x01\0\0\0\0\0\0\0\0";
    let site = Site::start(&[
        (
            "/",
            Answer::page("Acme", "We sell tables.", &["/plan.gif", "/logo.svg"]),
        ),
        ("/plan.gif", Answer::of("image/gif", picture)),
    ])
    .await;
    let without = options_for(&site).start().await;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("ingest/tests/ocr_stand_in.sh");
    let with = options_for(&site)
        .set("extract.ocr_program", program.display())
        .start()
        .await;

    let desk = Desk::of_website(&without, &site).await;
    let run = desk.sync().await;
    assert_eq!(desk.paths().await, ["/"]);
    assert_eq!(run.notes, [Note::MediaLeftOut]);

    let desk = Desk::of_website(&with, &site).await;
    let run = desk.sync().await;
    assert_eq!(
        desk.paths().await,
        ["/", "/plan.gif"],
        "{:?}",
        desk.failures(&run).await
    );
    assert_eq!((run.state, run.notes.as_slice()), (RunState::Done, [].as_slice()));
    assert!(desk.found("letter recognised").await.contains("recognised in GI"));
}

#[tokio::test]
async fn a_run_leaves_neither_its_host_nor_its_paths() {
    let other = Site::start(&[("/", Answer::page("Other", "Another site.", &[]))]).await;
    let site = Site::start(&[
        (
            "/",
            Answer::page(
                "Acme",
                "We sell tables.",
                &["/docs/a", "/admin/x", "/docs/private/y", "/away"],
            ),
        ),
        (
            "/docs/a",
            Answer::page(
                "A",
                "The first chapter of the guide.",
                &["/docs/b", &other.url("/")],
            ),
        ),
        (
            "/docs/b",
            Answer::page("B", "The second chapter of the guide.", &[]),
        ),
        ("/docs/private/y", Answer::page("Y", "Private.", &[])),
        ("/admin/x", Answer::page("X", "For staff.", &[])),
        ("/away", Answer::redirect(302, &other.url("/"))),
    ])
    .await;
    let service = options_for(&site)
        .set("outbound.allow", format!("{},{}", site.address, other.address))
        .start()
        .await;
    let mut settings = website(&site);
    settings["include"] = json!(["/docs/**", "/away"]);
    settings["exclude"] = json!(["/docs/private/**"]);
    let desk = Desk::with(&service, "website", settings).await;

    let run = desk.sync().await;

    assert_eq!(desk.paths().await, ["/", "/docs/a", "/docs/b"], "{run:?}");
    assert_eq!(run.state, RunState::Done, "{:?}", desk.failures(&run).await);
    assert!(other.take_asked().is_empty());
    let asked: Vec<String> = site.take_asked().into_iter().map(|asked| asked.path).collect();
    assert!(
        !asked
            .iter()
            .any(|path| path.contains("private") || path.contains("admin")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn links_are_followed_to_the_depth_limit() {
    let site = Site::start(&[
        ("/", Answer::page("Zero", "The start of it all.", &["/one"])),
        ("/one", Answer::page("One", "One link away.", &["/two"])),
        ("/two", Answer::page("Two", "Two links away.", &["/three"])),
        ("/three", Answer::page("Three", "Three links away.", &[])),
    ])
    .await;
    let service = service_for(&site).await;
    let mut settings = website(&site);
    settings["max_depth"] = json!(2);
    let desk = Desk::with(&service, "website", settings).await;

    desk.sync().await;

    assert_eq!(desk.paths().await, ["/", "/one", "/two"]);
}

#[tokio::test]
async fn what_robots_txt_disallows_is_not_asked_for_and_leaves_when_it_was_known() {
    let site = Site::start(&[
        (
            "/",
            Answer::page("Acme", "We sell tables.", &["/open", "/closed"]),
        ),
        ("/open", Answer::page("Open", "Everybody may read this.", &[])),
        ("/closed", Answer::page("Closed", "This was open once.", &[])),
    ])
    .await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    assert_eq!(desk.paths().await, ["/", "/closed", "/open"]);
    site.take_asked();
    site.put(
        "/robots.txt",
        Answer::of("text/plain", "User-agent: *\nDisallow: /closed\n"),
    );

    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 2, 1, 0]));
    assert!(site.take_asked().iter().all(|asked| asked.path != "/closed"));

    site.put(
        "/robots.txt",
        Answer::of("text/plain", "User-agent: *\nDisallow: /\n"),
    );
    let run = desk.sync().await;
    assert_eq!((run.state, run.removed_count), (RunState::Failed, 0), "{run:?}");
    assert_eq!(run.error.expect("a reason").0, "robots_disallowed");
    assert_eq!(desk.paths().await, ["/", "/open"]);
}

#[tokio::test]
async fn an_endless_calendar_ends() {
    let site = Site::start(&[("/", Answer::page("Acme", "Our events.", &["/cal/2026-01"]))]).await;
    for month in 0..400 {
        let path = |month: u32| format!("/cal/{}-{:02}", 2026 + month / 12, 1 + month % 12);
        let text = format!("What happens in month {month} of the plan.");
        site.put(
            &path(month),
            Answer::page(&format!("Month {month}"), &text, &[&path(month + 1)]),
        );
    }
    let service = service_for(&site).await;
    let mut settings = website(&site);
    settings["max_pages"] = json!(1000);
    settings["max_depth"] = json!(1000);
    let desk = Desk::with(&service, "website", settings).await;

    let run = desk.sync().await;

    assert_eq!(run.state, RunState::Done);
    assert!(run.new_count <= 201, "{run:?}");
}

#[tokio::test]
async fn headers_and_logins_go_to_their_own_origin_only() {
    let other = Site::start(&[("/page", Answer::page("Other", "Another site.", &[]))]).await;
    let site = Site::start(&[
        ("/", Answer::page("Acme", "We sell tables.", &["/away"])),
        ("/away", Answer::redirect(302, &other.url("/page"))),
    ])
    .await;
    let service = options_for(&site)
        .set("outbound.allow", format!("{},{}", site.address, other.address))
        .start()
        .await;
    let fetching = json!({
        "header_names": ["x-key"], "basic_auth_user": "crawler", "render": false, "delay_ms": null,
    });
    let settings = json!({
        "urls": [site.url("/"), site.url("/away"), other.url("/page")], "shrink_limit_percent": 50, "fetching": fetching,
    });
    let desk = Desk::with(&service, "pages", settings.clone()).await;
    desk.seal_headers(&[("x-key", "open sesame")], "secret").await;
    let mut of_site = settings;
    of_site["urls"] = json!([site.url("/"), site.url("/away")]);
    desk.change_settings(of_site).await;

    let run = desk.sync().await;

    assert_eq!(run.state, RunState::Partial, "{run:?}");
    assert_eq!(
        desk.failures(&run).await,
        [("/away".to_owned(), "redirected_away".to_owned())]
    );
    for asked in site.take_asked() {
        assert_eq!(asked.headers["x-key"], "open sesame");
        assert_eq!(asked.headers["authorization"], "Basic Y3Jhd2xlcjpzZWNyZXQ=");
    }
    let leaked: Vec<BTreeMap<String, String>> = other
        .take_asked()
        .into_iter()
        .map(|asked| asked.headers)
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[tokio::test]
async fn a_list_of_pages_is_these_pages_and_no_other() {
    let site = Site::start(&[
        ("/a", Answer::page("A", "The first page of the list.", &["/c"])),
        ("/b", Answer::page("B", "The second page of the list.", &[])),
        ("/c", Answer::page("C", "Not on the list.", &[])),
    ])
    .await;
    let service = service_for(&site).await;
    let pages = |urls: &[&str]| {
        json!({
            "urls": urls.iter().map(|path| site.url(path)).collect::<Vec<_>>(), "shrink_limit_percent": 50,
            "fetching": website(&site)["fetching"],
        })
    };
    let desk = Desk::with(&service, "pages", pages(&["/a", "/b"])).await;
    let run = desk.sync().await;
    assert_eq!((run.state, counts(&run)), (RunState::Done, [2, 0, 0, 0, 0]));
    assert_eq!(desk.paths().await, ["/a", "/b"]);

    desk.change_settings(pages(&["/a"])).await;
    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 1, 1, 0]));
}

#[tokio::test]
async fn a_sitemap_source_reads_what_the_sitemap_lists() {
    let site = Site::start(&[
        ("/a", Answer::page("A", "The first page of the map.", &["/c"])),
        ("/b", Answer::page("B", "The second page of the map.", &[])),
        ("/c", Answer::page("C", "Not on the map.", &[])),
    ])
    .await;
    let map = |paths: &[&str]| {
        let entries: String = paths
            .iter()
            .map(|path| format!("<url><loc>{}</loc></url>", site.url(path)))
            .collect();
        let text =
            format!("<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">{entries}</urlset>");
        Answer::of("application/xml", text)
    };
    site.put("/sitemap-all.xml", map(&["/a", "/b"]));
    let service = service_for(&site).await;
    let settings = json!({
        "url": site.url("/sitemap-all.xml"), "max_pages": 100, "include": [], "exclude": [], "shrink_limit_percent": 50,
        "fetching": website(&site)["fetching"],
    });
    let desk = Desk::with(&service, "sitemap", settings).await;
    let run = desk.sync().await;
    assert_eq!((run.state, counts(&run)), (RunState::Done, [2, 0, 0, 0, 0]));

    site.put("/sitemap-all.xml", Answer::status(404));
    let run = desk.sync().await;
    assert_eq!((run.state, run.removed_count), (RunState::Failed, 0), "{run:?}");
    assert_eq!(desk.paths().await, ["/a", "/b"]);

    site.put("/sitemap-all.xml", map(&["/b"]));
    let run = desk.sync().await;
    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 1, 1, 0]));
}
