//! What vanished goes, after everything was read; what could not be read stays, and so does what vanished in heaps.

use frontdesk::knowledge::sync::{Cause, Note, RunState, Wanted};
use serde_json::json;

use super::desk::{Desk, counts, options_for, service_for, website};
use super::site::{Answer, Site};

/// A start page and `count` pages that it links to.
async fn wide_site(count: usize) -> Site {
    let links: Vec<String> = (0..count).map(|page| format!("/page-{page}")).collect();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    let site = Site::start(&[("/", Answer::page("Acme", "Everything we sell.", &links))]).await;
    for page in 0..count {
        site.put(&format!("/page-{page}"), article(page));
    }
    site
}

fn article(page: usize) -> Answer {
    let text = format!("Article number {page} is made of wood kind {}.", page * 7);
    Answer::page(&format!("Article {page}"), &text, &["/"])
}

fn link_to(pages: &[usize]) -> Answer {
    let links: Vec<String> = pages.iter().map(|page| format!("/page-{page}")).collect();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    Answer::page("Acme", "Everything we sell.", &links)
}

#[tokio::test]
async fn a_removed_page_is_in_no_answer_after_the_run() {
    let site = wide_site(8).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    assert!(
        desk.found("Article number 3")
            .await
            .contains("Article number 3 is")
    );

    site.remove("/page-3");
    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 8, 1, 0]));
    assert!(
        !desk
            .found("Article number 3")
            .await
            .contains("Article number 3 is")
    );
}

#[tokio::test]
async fn a_page_that_nothing_leads_to_any_more_goes() {
    let site = wide_site(8).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;

    site.put("/", link_to(&[0, 1, 2, 4, 5, 6, 7]));
    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 8, 1, 0]));
}

#[tokio::test]
async fn a_spell_of_server_errors_removes_nothing() {
    let site = wide_site(8).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    for page in [1, 2, 3] {
        site.put(&format!("/page-{page}"), Answer::status(503));
    }

    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Partial, [0, 0, 6, 0, 3]));
    let failures = desk.failures(&run).await;
    assert!(
        failures.iter().all(|(_, code)| code == "server_error"),
        "{failures:?}"
    );
    assert!(
        desk.found("Article number 3")
            .await
            .contains("Article number 3 is")
    );

    site.fail_with(Some(Answer::status(503)));
    let run = desk.sync().await;
    assert_eq!((run.state, run.removed_count), (RunState::Failed, 0), "{run:?}");
    assert!(run.error.is_some());
    assert_eq!(desk.source_state().await, "failed");
    assert_eq!(desk.paths().await.len(), 9);

    site.fail_with(None);
    for page in [1, 2, 3] {
        let text = format!("Article number {page} is made of wood kind {}.", page * 7);
        site.put(
            &format!("/page-{page}"),
            Answer::page(&format!("Article {page}"), &text, &["/"]),
        );
    }
    let run = desk.sync().await;
    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 9, 0, 0]));
    assert_eq!(desk.source_state().await, "idle");
}

#[tokio::test]
async fn a_failure_that_passes_is_tried_again_within_the_run() {
    let site = wide_site(2).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    site.put("/page-1", Answer::status(503).header("retry-after", "1"));
    let run = desk.request(Cause::Request).await;
    service.drain_jobs().await;

    site.put("/page-1", Answer::page("Article 1", "Here it is after all.", &[]));
    let run = desk.finish(run).await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [3, 0, 0, 0, 0]));
}

#[tokio::test]
async fn a_sudden_shrinking_is_held_back_until_the_owner_agrees() {
    let site = wide_site(12).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    site.put("/", link_to(&[0, 1]));

    let run = desk.sync().await;
    assert_eq!(
        (run.state, run.removed_count, run.held_count),
        (RunState::Partial, 0, 10)
    );
    assert!(run.notes.contains(&Note::RemovalsHeld));
    assert_eq!(desk.paths().await.len(), 13);

    let run = desk.sync().await;
    assert_eq!(
        (run.removed_count, run.held_count),
        (0, 10),
        "and stays held back"
    );

    let run = desk
        .sync_as(Wanted {
            accepts_removals: true,
            ..Wanted::from(Cause::Request)
        })
        .await;
    assert_eq!((run.state, run.removed_count), (RunState::Done, 10));
    assert_eq!(desk.paths().await, ["/", "/page-0", "/page-1"]);
}

#[tokio::test]
async fn pages_that_are_gone_in_heaps_are_held_back_too() {
    let site = wide_site(12).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    for page in 0..12 {
        site.remove(&format!("/page-{page}"));
    }

    let run = desk.sync().await;

    assert_eq!(
        (run.state, run.removed_count, run.held_count),
        (RunState::Partial, 0, 12)
    );
    assert_eq!(desk.paths().await.len(), 13);
}

#[tokio::test]
async fn what_the_owner_excludes_goes_however_much_it_is() {
    let site = wide_site(12).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let mut settings = website(&site);
    settings["exclude"] = json!(["/page-*"]);
    desk.change_settings(settings).await;

    let run = desk.sync().await;

    assert_eq!((run.state, run.removed_count), (RunState::Done, 12), "{run:?}");
    assert_eq!(desk.paths().await, ["/"]);
}

#[tokio::test]
async fn a_start_page_that_is_missing_empties_nothing() {
    let site = wide_site(8).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    site.remove("/");

    let run = desk.sync().await;

    assert_eq!((run.state, run.removed_count), (RunState::Partial, 0), "{run:?}");
    assert_eq!(
        desk.failures(&run).await,
        [("/".to_owned(), "start_missing".to_owned())]
    );
    assert_eq!(desk.paths().await.len(), 9);
}

#[tokio::test]
async fn a_site_that_cannot_say_what_it_allows_is_left_alone() {
    let site = wide_site(8).await;
    site.put("/robots.txt", Answer::status(500));
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;

    assert_eq!(run.state, RunState::Failed, "{run:?}");
    assert_eq!(run.error.expect("a reason").0, "robots_unavailable");
    assert!(site.take_asked().is_empty());
}

#[tokio::test]
async fn behind_the_page_limit_nothing_is_taken_for_gone() {
    let site = wide_site(12).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let mut settings = website(&site);
    settings["max_pages"] = json!(5);
    desk.change_settings(settings).await;
    site.remove("/page-9");

    let run = desk.sync().await;

    // The pages that are known are looked at all the same: what is gone among them goes.
    assert_eq!(
        (run.state, counts(&run)),
        (RunState::Done, [0, 0, 12, 1, 0]),
        "{run:?}"
    );
    assert_eq!(desk.paths().await.len(), 12);
}

#[tokio::test]
async fn a_new_source_stops_at_its_page_limit_and_says_so() {
    let site = wide_site(12).await;
    let service = service_for(&site).await;
    let mut settings = website(&site);
    settings["max_pages"] = json!(5);
    let desk = Desk::with(&service, "website", settings).await;

    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [5, 0, 0, 0, 0]));
    assert_eq!(run.notes, [Note::PageLimit]);
    assert_eq!(
        desk.paths().await,
        ["/", "/page-0", "/page-1", "/page-10", "/page-11"]
    );
}

#[tokio::test]
async fn a_site_that_breaks_down_on_the_way_is_not_asked_for_the_rest() {
    let site = wide_site(120).await;
    let service = service_for(&site).await;
    let mut settings = website(&site);
    settings["max_pages"] = json!(1000);
    let desk = Desk::with(&service, "website", settings).await;
    desk.sync().await;
    for page in 0..120 {
        site.put(&format!("/page-{page}"), Answer::status(502));
    }
    site.take_asked();

    let run = desk.sync().await;

    assert_eq!((run.state, run.removed_count), (RunState::Partial, 0), "{run:?}");
    assert!(run.notes.contains(&Note::ManyFailures));
    assert!(!desk.failures(&run).await.is_empty());
    let asked = site.take_asked().len();
    assert!(asked < 120, "{asked}");
    assert_eq!(desk.paths().await.len(), 121);
}

#[tokio::test]
async fn a_limit_that_is_reached_by_the_last_page_says_that_there_is_more() {
    let site = Site::start(&[
        ("/", Answer::page("Zero", "The start of it all.", &["/one"])),
        ("/one", Answer::page("One", "One link away.", &["/two"])),
        ("/two", Answer::page("Two", "Two links away.", &[])),
    ])
    .await;
    let service = service_for(&site).await;
    let mut settings = website(&site);
    settings["max_pages"] = json!(3);
    let desk = Desk::with(&service, "website", settings.clone()).await;
    let run = desk.sync().await;
    assert_eq!((run.state, run.notes), (RunState::Done, vec![]), "all of it fits");

    settings["max_pages"] = json!(2);
    desk.change_settings(settings).await;
    let run = desk.sync().await;

    assert_eq!((run.removed_count, run.notes), (0, vec![Note::PageLimit]));
    assert_eq!(desk.paths().await, ["/", "/one", "/two"]);
}

#[tokio::test]
async fn a_site_that_shows_one_text_everywhere_loses_nothing_and_is_itself_again_later() {
    let site = wide_site(8).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let before = desk.paths().await;

    let links: Vec<String> = (0..8).map(|page| format!("/page-{page}")).collect();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    for path in &before {
        let closed = Answer::page("Maintenance", "We are back in an hour.", &links);
        site.put(path, closed);
    }
    let run = desk.sync().await;

    assert_eq!(run.state, RunState::Partial);
    assert!(run.notes.contains(&Note::RemovalsHeld));
    assert_eq!((run.removed_count, run.held_count), (0, 8));
    assert_eq!(desk.paths().await, before);
    assert!(
        desk.found("Article number 3")
            .await
            .contains("Article number 3 is")
    );

    site.put("/", link_to(&[0, 1, 2, 3, 4, 5, 6, 7]));
    for page in 0..8 {
        site.put(&format!("/page-{page}"), article(page));
    }
    let run = desk.sync().await;

    assert_eq!((run.state, run.removed_count), (RunState::Done, 0));
    assert_eq!(desk.paths().await, before);
}

#[tokio::test]
async fn a_site_that_sends_everyone_to_its_start_page_loses_nothing() {
    let site = wide_site(8).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let before = desk.paths().await;

    for path in before.iter().filter(|path| *path != "/") {
        site.put(path, Answer::redirect(302, "/"));
    }
    let run = desk.sync().await;

    assert!(run.notes.contains(&Note::RemovalsHeld));
    assert_eq!((run.removed_count, run.held_count), (0, 8));
    assert_eq!(desk.paths().await, before);
}

#[tokio::test]
async fn a_small_site_whose_pages_are_all_gone_keeps_them_and_says_so() {
    let site = Site::start(&[]).await;
    let paths = ["/page-0", "/page-1", "/page-2", "/page-3", "/page-4"];
    let entries: String = paths
        .iter()
        .map(|path| format!("<url><loc>{}</loc></url>", site.url(path)))
        .collect();
    site.put(
        "/sitemap.xml",
        Answer::of("application/xml", format!("<urlset>{entries}</urlset>")),
    );
    for page in 0..5 {
        site.put(&format!("/page-{page}"), article(page));
    }
    let service = service_for(&site).await;
    let settings = json!({
        "url": site.url("/sitemap.xml"), "max_pages": 100, "include": [], "exclude": [], "shrink_limit_percent": 50,
        "fetching": website(&site)["fetching"],
    });
    let desk = Desk::with(&service, "sitemap", settings).await;
    desk.sync().await;
    for path in &paths {
        site.remove(path);
    }

    let run = desk.sync().await;

    assert_eq!(
        (run.state, run.removed_count, run.held_count),
        (RunState::Partial, 0, 5)
    );
    assert!(run.notes.contains(&Note::RemovalsHeld));
    assert_eq!(desk.paths().await, paths);

    // Where one is left, four are few.
    site.put("/page-0", article(0));
    let run = desk.sync().await;
    assert_eq!((run.removed_count, run.held_count), (4, 0));
    assert_eq!(desk.paths().await, ["/page-0"]);
}

#[tokio::test]
async fn an_owner_who_shortens_a_list_of_pages_means_it() {
    let site = wide_site(8).await;
    let service = service_for(&site).await;
    let list = |count: usize| {
        let urls: Vec<String> = (0..count)
            .map(|page| site.url(&format!("/page-{page}")))
            .collect();
        json!({ "urls": urls, "shrink_limit_percent": 0, "fetching": website(&site)["fetching"] })
    };
    let desk = Desk::with(&service, "pages", list(8)).await;
    desk.sync().await;
    desk.change_settings(list(1)).await;

    let run = desk.sync().await;

    assert_eq!(
        (run.state, run.removed_count, run.held_count),
        (RunState::Done, 7, 0)
    );
    assert_eq!(desk.paths().await, ["/page-0"]);
}

#[tokio::test]
async fn a_chatbot_that_is_full_takes_no_more_run_after_run_and_goes_on_when_there_is_room() {
    let links = ["/a", "/b", "/c", "/d"];
    let site = Site::start(&[("/", Answer::page("Acme", "Everything we sell.", &links))]).await;
    for link in links {
        site.put(
            link,
            Answer::page(link, &format!("What there is to say about {link}."), &[]),
        );
    }
    let service = options_for(&site)
        .set("limits.documents_per_chatbot", 3)
        .start()
        .await;
    let desk = Desk::of_website(&service, &site).await;

    let first = desk.sync().await;
    let known = desk.paths().await;
    let second = desk.sync().await;

    for (run, expected) in [(&first, [3, 0, 0, 0, 2]), (&second, [0, 0, 3, 0, 2])] {
        assert_eq!((run.state, counts(run)), (RunState::Partial, expected));
        let told = desk.failures(run).await;
        assert!(
            told.iter()
                .all(|(path, code)| code == "too_many_documents" && !known.contains(path)),
            "{told:?}"
        );
    }
    assert_eq!(desk.paths().await, known, "the first three stay");

    let (gone, left) = known.split_last().expect("three");
    site.put(gone, Answer::status(410));
    desk.sync().await;
    let third = desk.sync().await;
    assert_eq!((third.new_count, third.failed_count), (1, 1), "{third:?}");
    let now = desk.paths().await;
    assert!(
        now.len() == 3 && left.iter().all(|path| now.contains(path)),
        "{now:?}"
    );
}
