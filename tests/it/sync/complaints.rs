//! A run that could read nothing, or left something out, says why.

use std::os::unix::fs::PermissionsExt as _;

use frontdesk::knowledge::sync::{Note, RunState};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::desk::{Desk, counts, options_for, service_for, website};
use super::site::{Answer, Site};

fn pages(site: &Site, paths: &[&str]) -> Value {
    json!({
        "urls": paths.iter().map(|path| site.url(path)).collect::<Vec<_>>(), "shrink_limit_percent": 50,
        "fetching": website(site)["fetching"],
    })
}

fn refresh(to: &str) -> Answer {
    let head = format!("<meta http-equiv=\"refresh\" content=\"0; url={to}\">");
    Answer::html("On and on", &head, "This way, please.", &[])
}

fn noindex() -> Answer {
    Answer::html(
        "Internal",
        "<meta name=\"robots\" content=\"noindex\">",
        "Not for others.",
        &[],
    )
}

#[tokio::test]
async fn a_page_of_the_list_of_which_nothing_is_kept_is_a_failure_each_time() {
    let site = Site::start(&[
        ("/noindex", noindex()),
        (
            "/header",
            Answer::page("Internal", "Not for others.", &[]).header("x-robots-tag", "noindex"),
        ),
        ("/empty", Answer::of("text/html", "<p></p>")),
        ("/soft", Answer::page("Page not found", "Try the search.", &[])),
        ("/there", refresh("/back")),
        ("/back", refresh("/there")),
    ])
    .await;
    let service = service_for(&site).await;
    let paths = ["/noindex", "/header", "/empty", "/soft", "/missing", "/there"];
    let desk = Desk::with(&service, "pages", pages(&site, &paths)).await;

    for run in [desk.sync().await, desk.sync().await] {
        assert_eq!((run.state, counts(&run)), (RunState::Failed, [0, 0, 0, 0, 6]));
        let told: Vec<(String, String)> = desk.failures(&run).await;
        let told: Vec<(&str, &str)> = told
            .iter()
            .map(|(path, code)| (path.as_str(), code.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("/empty", "no_text"),
                ("/header", "noindex"),
                ("/missing", "page_missing"),
                ("/noindex", "noindex"),
                ("/soft", "page_missing"),
                ("/there", "redirect_loop"),
            ]
        );
        assert!(run.error.is_some());
    }
}

#[tokio::test]
async fn a_start_page_that_asks_not_to_be_kept_and_leads_nowhere_is_a_failure() {
    let site = Site::start(&[("/", noindex())]).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;

    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.error.expect("a reason").0, "noindex");
    assert_eq!(desk.source_state().await, "failed");
}

#[tokio::test]
async fn a_start_page_that_leads_round_in_a_circle_is_a_failure() {
    let site = Site::start(&[
        ("/", refresh("/one")),
        ("/one", refresh("/two")),
        ("/two", refresh("/one")),
    ])
    .await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;

    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.error.expect("a reason").0, "redirect_loop");
}

#[tokio::test]
async fn a_site_of_which_nothing_may_be_kept_is_not_called_read() {
    let site = Site::start(&[
        (
            "/",
            Answer::html(
                "Start",
                "<meta name=\"robots\" content=\"noindex\">",
                "Come in.",
                &["/in"],
            ),
        ),
        ("/in", noindex()),
    ])
    .await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;

    assert_eq!(run.state, RunState::Failed, "{run:?}");
    assert_eq!(run.error.expect("a reason").0, "nothing_found");
}

#[tokio::test]
async fn pages_that_only_say_that_there_is_none_are_left_out_with_a_note() {
    let site = Site::start(&[("/", Answer::page("Acme", "We sell tables.", &["/a", "/b"]))]).await;
    for path in ["/a", "/b"] {
        site.put(path, Answer::page("Page not found", "Try the search.", &[]));
    }
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [1, 0, 0, 0, 0]));
    assert_eq!(run.notes, [Note::SoftNotFound]);
}

#[tokio::test]
async fn a_page_that_cannot_be_read_keeps_the_document_that_it_leads_to() {
    let site = Site::start(&[
        ("/old", Answer::redirect(301, "/new")),
        ("/new", Answer::page("New", "Here it is now.", &[])),
        ("/other", Answer::page("Other", "Something else.", &[])),
    ])
    .await;
    let service = service_for(&site).await;
    let desk = Desk::with(&service, "pages", pages(&site, &["/old", "/other"])).await;
    desk.sync().await;
    assert_eq!(desk.paths().await, ["/new", "/other"]);
    site.put("/old", Answer::status(500));

    let run = desk.sync().await;

    assert_eq!((run.state, run.removed_count), (RunState::Partial, 0), "{run:?}");
    assert_eq!(desk.paths().await, ["/new", "/other"]);
}

#[tokio::test]
async fn a_page_that_kills_its_reader_is_given_to_two_readers_at_most() {
    let folder = TempDir::new().expect("a temporary folder");
    let (program, starts) = (folder.path().join("reader"), folder.path().join("starts"));
    let script = format!("#!/bin/sh\necho started >> {}\nexit 1\n", starts.display());
    std::fs::write(&program, script).expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
    let site = Site::start(&[("/", Answer::page("Start", "Whatever.", &[]))]).await;
    let service = options_for(&site).extractor(program).start().await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;

    assert_eq!(run.error.expect("a reason").0, "crashed");
    let started = std::fs::read_to_string(&starts)
        .expect("it was started")
        .lines()
        .count();
    assert!(started <= 2, "{started}");
    assert_eq!(site.take_asked().len(), 1, "nor is the page asked for again");
}

#[tokio::test]
async fn what_a_site_shows_where_there_is_nothing_is_no_page() {
    let links = ["/a", "/b", "/gone-1", "/gone-2"];
    let site = Site::start(&[
        ("/", Answer::page("Acme", "We sell tables.", &links)),
        ("/a", Answer::page("A", "The first of our tables.", &[])),
        ("/b", Answer::page("B", "The second of our tables.", &[])),
        ("/robots.txt", Answer::status(404)),
        ("/sitemap.xml", Answer::status(404)),
    ])
    .await;
    site.put_anywhere(Answer::page(
        "Acme",
        "We have looked everywhere. Try the menu.",
        &[],
    ));
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [3, 0, 0, 0, 0]));
    assert_eq!(run.notes, [Note::SoftNotFound]);
    assert_eq!(desk.paths().await, ["/", "/a", "/b"]);

    site.remove("/a");
    let run = desk.sync().await;
    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 2, 1, 0]));
    assert_eq!(desk.paths().await, ["/", "/b"]);
    let questions = site
        .take_all_asked()
        .iter()
        .filter(|asked| asked.path.starts_with("/no-such-page-"))
        .count();
    assert_eq!(questions, 1, "it is asked once, not for each page");
}

#[tokio::test]
async fn a_page_that_echoes_the_address_that_it_has_nothing_for_is_left_out() {
    let links = ["/real", "/one", "/two", "/three"];
    let site = Site::start(&[
        ("/", Answer::page("Acme", "We sell tables.", &links)),
        (
            "/real",
            Answer::page("Oak", "A table of oak for eight guests.", &[]),
        ),
    ])
    .await;
    let echo = "We have looked for {path} everywhere and did not come across it, so have a look around.";
    site.put_anywhere(Answer::page("Acme", echo, &[]));
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;

    assert_eq!(
        (run.state, counts(&run)),
        (RunState::Done, [2, 0, 0, 0, 0]),
        "{run:?}"
    );
    assert_eq!(desk.paths().await, ["/", "/real"]);
    assert_eq!(run.notes, [Note::SoftNotFound]);
}
