//! A run is a diff: what is unchanged costs nothing, what changed is a new version, and one text is one document.

use chrono::TimeDelta;
use frontdesk::knowledge::sync::{Cause, RunState, Wanted};

use super::desk::{Desk, counts, service_for, website};
use super::site::{Answer, Site};

fn small_site() -> [(&'static str, Answer); 4] {
    [
        (
            "/",
            Answer::page("Acme", "We sell oak tables and chairs.", &["/oil", "/hours"]),
        ),
        (
            "/oil",
            Answer::page("Oiling", "Oak tables are oiled twice a year.", &["/", "/returns"]),
        ),
        (
            "/hours",
            Answer::page("Hours", "The showroom opens at ten.", &["/"]),
        ),
        (
            "/returns",
            Answer::page("Returns", "Goods may be returned within thirty days.", &[]),
        ),
    ]
}

#[tokio::test]
async fn the_first_run_reads_every_page_that_links_lead_to() {
    let site = Site::start(&small_site()).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;

    assert_eq!(
        run.state,
        RunState::Done,
        "{run:?} {:?}",
        desk.failures(&run).await
    );
    assert_eq!(counts(&run), [4, 0, 0, 0, 0]);
    assert!(run.bytes > 0 && run.embedding_calls > 0 && run.ended_at.is_some());
    assert_eq!(desk.paths().await, ["/", "/hours", "/oil", "/returns"]);
    assert!(
        desk.found("How often are oak tables oiled?")
            .await
            .contains("twice a year")
    );
    assert_eq!(desk.source_state().await, "idle");
}

#[tokio::test]
async fn an_unchanged_site_costs_no_page_and_no_embedding() {
    let site = Site::start(&small_site()).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    site.take_asked();

    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 4, 0, 0]));
    assert_eq!((run.embedding_calls, run.bytes), (0, 0));
    let asked = site.take_asked();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|asked| asked.status == 304), "{asked:?}");
}

#[tokio::test]
async fn without_validators_the_body_tells_that_nothing_changed() {
    let pages = small_site().map(|(path, answer)| (path, answer.without_validator()));
    let site = Site::start(&pages).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;

    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 4, 0, 0]));
    assert_eq!(run.embedding_calls, 0);
}

#[tokio::test]
async fn a_page_whose_text_is_the_same_is_unchanged_whatever_its_markup() {
    let site = Site::start(&small_site()).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    site.put(
        "/hours",
        Answer::html(
            "Hours",
            "<meta name=\"build\" content=\"7\">",
            "The showroom opens at ten.",
            &["/"],
        ),
    );

    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 4, 0, 0]));
    assert_eq!(run.embedding_calls, 0);
}

#[tokio::test]
async fn a_changed_page_is_a_new_version_of_its_document() {
    let site = Site::start(&small_site()).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let before = desk.documents().await;
    site.put(
        "/oil",
        Answer::page("Oiling", "Oak tables are oiled every spring.", &["/", "/returns"]),
    );

    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 1, 3, 0, 0]));
    assert_eq!(desk.documents().await, before, "the same documents, by id");
    let found = desk.found("When are oak tables oiled?").await;
    assert!(
        found.contains("every spring") && !found.contains("twice a year"),
        "{found}"
    );
}

#[tokio::test]
async fn a_full_run_asks_for_every_page_and_still_embeds_nothing_that_is_known() {
    let site = Site::start(&small_site()).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    site.take_asked();

    let run = desk
        .sync_as(Wanted {
            is_full: true,
            ..Wanted::from(Cause::Request)
        })
        .await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 4, 0, 0]));
    assert_eq!(run.embedding_calls, 0);
    assert!(site.take_asked().iter().all(|asked| asked.status == 200));
}

#[tokio::test]
async fn one_text_under_several_addresses_is_one_document() {
    let copy = Answer::page("Care", "Wipe the table with a damp cloth.", &[]);
    let site = Site::start(&[
        (
            "/",
            Answer::page("Acme", "We sell tables.", &["/b-care", "/a-care", "/care/print"]),
        ),
        ("/b-care", copy.clone()),
        ("/a-care", copy.clone()),
        ("/care/print", copy.clone()),
    ])
    .await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;
    assert_eq!((run.state, counts(&run)), (RunState::Done, [2, 0, 0, 0, 0]));
    assert_eq!(desk.paths().await, ["/", "/a-care"]);

    let run = desk.sync().await;
    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 2, 0, 0]));

    // The address that had the document is gone: the text is still there, under the next one.
    site.remove("/a-care");
    let run = desk.sync().await;
    assert_eq!(desk.paths().await, ["/", "/b-care"], "{run:?}");
    assert!(desk.found("damp cloth").await.contains("damp cloth"));

    // It says something else now: the copy keeps what both said.
    site.put("/b-care", Answer::page("Care", "Wax the table once a year.", &[]));
    desk.sync().await;
    assert_eq!(desk.paths().await, ["/", "/b-care", "/care/print"]);
}

#[tokio::test]
async fn a_page_is_known_by_the_address_that_it_leads_to() {
    let site = Site::start(&[
        (
            "/",
            Answer::page(
                "Acme",
                "We sell tables.",
                &["/old", "/refresh", "/print?x=1", "/loop"],
            ),
        ),
        ("/old", Answer::redirect(301, "/new")),
        ("/new", Answer::page("New", "The new page about oak.", &[])),
        (
            "/refresh",
            Answer::html(
                "Wait",
                "<meta http-equiv=\"refresh\" content=\"0; url=/target\">",
                "",
                &[],
            ),
        ),
        (
            "/target",
            Answer::page("Target", "The page behind the refresh.", &[]),
        ),
        (
            "/print?x=1",
            Answer::html(
                "Print",
                "<link rel=\"canonical\" href=\"/article\">",
                "For the printer: about pine.",
                &[],
            ),
        ),
        (
            "/article",
            Answer::page("Article", "For readers: about pine.", &[]),
        ),
        ("/loop", Answer::redirect(302, "/loop2")),
        ("/loop2", Answer::redirect(302, "/loop")),
    ])
    .await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;
    assert_eq!(
        desk.paths().await,
        ["/", "/article", "/new", "/target"],
        "{run:?}"
    );
    assert_eq!(run.state, RunState::Done, "{:?}", desk.failures(&run).await);

    let before = desk.documents().await;
    let run = desk.sync().await;
    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 4, 0, 0]));
    assert_eq!(desk.documents().await, before);
}

#[tokio::test]
async fn a_page_that_moves_takes_its_document_along() {
    let site = Site::start(&small_site()).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let id = desk.documents().await["/hours"].0;
    site.put("/hours", Answer::redirect(301, "/opening"));
    site.put(
        "/opening",
        Answer::page("Hours", "The showroom opens at ten.", &["/"]),
    );

    let run = desk.sync().await;

    assert_eq!(desk.paths().await, ["/", "/oil", "/opening", "/returns"]);
    assert_eq!(desk.documents().await["/opening"].0, id);
    assert_eq!((run.state, run.embedding_calls), (RunState::Done, 0));
}

#[tokio::test]
async fn pages_that_are_not_to_be_kept_are_not_kept_and_still_lead_on() {
    let site = Site::start(&[
        (
            "/",
            Answer::page(
                "Acme",
                "We sell tables.",
                &["/internal", "/closed", "/missing", "/hub"],
            ),
        ),
        (
            "/internal",
            Answer::html(
                "Internal",
                "<meta name=\"robots\" content=\"noindex\">",
                "Not for others.",
                &["/behind"],
            ),
        ),
        (
            "/closed",
            Answer::html(
                "Closed",
                "<meta name=\"robots\" content=\"nofollow\">",
                "A page of its own.",
                &["/hidden"],
            ),
        ),
        (
            "/behind",
            Answer::page("Behind", "Found through an internal page.", &[]),
        ),
        ("/hidden", Answer::page("Hidden", "Nobody leads here.", &[])),
        ("/missing", Answer::page("Page not found", "Try the search.", &[])),
        (
            "/hub",
            Answer::of("text/html", "<nav><a href=\"/leaf\">.</a></nav>"),
        ),
        ("/leaf", Answer::page("Leaf", "A leaf of the site.", &[])),
    ])
    .await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;
    let kept = desk.paths().await;
    for path in ["/", "/behind", "/closed", "/leaf"] {
        assert!(kept.contains(&path.to_owned()), "{kept:?} {run:?}");
    }
    for path in ["/internal", "/hidden", "/missing"] {
        assert!(!kept.contains(&path.to_owned()), "{kept:?}");
    }

    // A page that is taken back leaves with the run.
    site.put(
        "/closed",
        Answer::html(
            "Closed",
            "<meta name=\"robots\" content=\"noindex\">",
            "A page of its own.",
            &[],
        ),
    );
    let run = desk.sync().await;
    assert_eq!((run.state, run.removed_count), (RunState::Done, 1));
    assert!(!desk.found("page of its own").await.contains("page of its own"));
}

#[tokio::test]
async fn files_that_pages_link_to_are_read_by_their_own_readers() {
    let site = Site::start(&[
        (
            "/",
            Answer::page("Acme", "Our price list.", &["/prices.csv", "/broken.pdf"]),
        ),
        (
            "/prices.csv",
            Answer::of("text/csv", "Article,Price\nOak table,400\nPine chair,80\n"),
        ),
        (
            "/broken.pdf",
            Answer::of("application/pdf", "%PDF-1.4\nnothing follows"),
        ),
    ])
    .await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;

    let run = desk.sync().await;

    assert_eq!(run.state, RunState::Partial);
    assert!(desk.found("price of the oak table").await.contains("400"));
    let failures = desk.failures(&run).await;
    assert_eq!(failures, [("/broken.pdf".to_owned(), "damaged".to_owned())]);
    assert_eq!(run.failed_count, 1);
}

#[tokio::test]
async fn a_sitemap_names_pages_that_no_link_leads_to_and_saves_asking_for_old_ones() {
    let site = Site::start(&[
        ("/", Answer::page("Acme", "We sell tables.", &[])),
        ("/island", Answer::page("Island", "Only the site map knows this page.", &[]).without_validator()),
        (
            "/sitemap.xml",
            Answer::of(
                "application/xml",
                "<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\"><url><loc>/island</loc><lastmod>2026-01-01</lastmod></url></urlset>",
            ),
        ),
    ])
    .await;
    let map = format!(
        "<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\"><url><loc>{}</loc><lastmod>2026-01-01</lastmod></url></urlset>",
        site.url("/island")
    );
    site.put("/sitemap.xml", Answer::of("application/xml", map));
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    let run = desk.sync().await;
    assert_eq!((run.state, counts(&run)), (RunState::Done, [2, 0, 0, 0, 0]));
    site.take_asked();

    let run = desk.sync().await;

    assert_eq!((run.state, counts(&run)), (RunState::Done, [0, 0, 2, 0, 0]));
    let asked: Vec<String> = site.take_asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(asked, ["/"]);

    service.clock.advance(TimeDelta::days(8));
    desk.sync().await;
    assert_eq!(
        site.take_asked().len(),
        2,
        "it is looked at now and then all the same"
    );
}

#[tokio::test]
async fn the_order_of_answers_decides_nothing() {
    let copy = |delay: u64| {
        Answer::page("Care", "Wipe the table with a damp cloth.", &[])
            .slow(std::time::Duration::from_millis(delay))
    };
    for (a, b) in [(0, 120), (120, 0)] {
        let site = Site::start(&[
            ("/", Answer::page("Acme", "We sell tables.", &["/b", "/a"])),
            ("/a", copy(a)),
            ("/b", copy(b)),
        ])
        .await;
        let service = service_for(&site).await;
        let desk = Desk::with(&service, "website", website(&site)).await;

        let run = desk.sync().await;

        assert_eq!(desk.paths().await, ["/", "/a"], "{run:?}");
        assert_eq!(counts(&run), [2, 0, 0, 0, 0]);
    }
}
