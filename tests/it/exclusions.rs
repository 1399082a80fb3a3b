//! What is deleted by hand stays away, whatever the site still shows, until its owner wants it back.

use reqwest::Method;
use serde_json::{Value, json};

use crate::drive::desk::options_for;
use crate::harness::app::TestApp;
use crate::harness::drive::FakeDrive;
use crate::sync::desk::{Desk, service_for};
use crate::sync::site::{Answer, Site};

async fn items(service: &TestApp, key: &str, path: &str) -> Vec<Value> {
    let reply = service.send(Method::GET, path, Some(key), None).await.expect(200);
    reply.json()["items"].as_array().expect("items").clone()
}

fn named<'a>(items: &'a [Value], title: &str) -> &'a str {
    let found = items.iter().find(|item| item["title"] == title);
    found.unwrap_or_else(|| panic!("{title} is in {items:?}"))["id"]
        .as_str()
        .expect("an id")
}

#[tokio::test]
async fn a_page_that_was_deleted_by_hand_does_not_come_back_and_still_leads_on() {
    let site = Site::start(&[
        ("/", Answer::page("Shop", "We sell tables.", &["/help"])),
        (
            "/help",
            Answer::page("Help", "Words that nobody should read.", &["/help/hours"]),
        ),
        (
            "/help/hours",
            Answer::page("Hours", "The showroom opens at ten.", &[]),
        ),
    ])
    .await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    let (documents, exclusions) = (
        format!("/api/sources/{}/documents", desk.source_id),
        format!("/api/sources/{}/exclusions", desk.source_id),
    );
    let before = items(&service, &desk.key, &documents).await;
    let path = format!("/api/documents/{}", named(&before, "Help"));
    service
        .send(Method::DELETE, &path, Some(&desk.key), None)
        .await
        .expect(204);

    for full in [false, false, true] {
        let run = match full {
            true => {
                desk.sync_as(frontdesk::knowledge::sync::Wanted {
                    is_full: true,
                    ..frontdesk::knowledge::sync::Cause::Request.into()
                })
                .await
            }
            false => desk.sync().await,
        };
        assert_eq!(
            (run.new_count, run.removed_count, run.unchanged_count),
            (0, 0, 2),
            "{run:?}"
        );
        let now = items(&service, &desk.key, &documents).await;
        assert_eq!(now.len(), 2, "{now:?}");
        named(&now, "Hours");
    }
    // A change of the page changes nothing of that.
    site.put(
        "/help",
        Answer::page("Help", "Other words that nobody should read.", &["/help/hours"]),
    );
    assert_eq!(desk.sync().await.new_count, 0);

    let listed = items(&service, &desk.key, &exclusions).await;
    assert_eq!(
        (&listed[0]["external_id"], &listed[0]["url"], listed.len()),
        (&json!(site.url("/help")), &json!(site.url("/help")), 1)
    );
    let path = format!("{exclusions}/{}", named(&listed, "Help"));
    service
        .send(Method::DELETE, &path, Some(&desk.key), None)
        .await
        .expect(204);
    service
        .send(Method::DELETE, &path, Some(&desk.key), None)
        .await
        .expect(404);
    assert_eq!(desk.sync().await.new_count, 1);
    named(&items(&service, &desk.key, &documents).await, "Help");
    assert!(items(&service, &desk.key, &exclusions).await.is_empty());
}

#[tokio::test]
async fn words_that_were_deleted_by_hand_do_not_come_back_under_another_address() {
    let deleted = Answer::page("Help", "Words that nobody should read.", &[]);
    let site = Site::start(&[
        (
            "/",
            Answer::page("Shop", "We sell tables.", &["/help", "/print/help"]),
        ),
        ("/help", deleted.clone()),
        ("/print/help", deleted.clone()),
    ])
    .await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    assert_eq!(desk.sync().await.new_count, 2, "one text is one document");
    let documents = format!("/api/sources/{}/documents", desk.source_id);
    let before = items(&service, &desk.key, &documents).await;
    let path = format!("/api/documents/{}", named(&before, "Help"));
    service
        .send(Method::DELETE, &path, Some(&desk.key), None)
        .await
        .expect(204);
    site.put(
        "/",
        Answer::page("Shop", "We sell tables.", &["/help", "/print/help", "/new/help"]),
    );
    site.put("/new/help", deleted);

    for _ in 0..2 {
        assert_eq!(desk.sync().await.new_count, 0);
        assert_eq!(desk.paths().await, ["/"]);
    }

    site.put(
        "/new/help",
        Answer::page("Help", "Words that everybody should read.", &[]),
    );
    assert_eq!(desk.sync().await.new_count, 1, "it is a page like any other");
    assert_eq!(desk.paths().await, ["/", "/new/help"]);
}

#[tokio::test]
async fn a_file_that_was_deleted_by_hand_is_not_downloaded_again() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    fake.text("kept.txt", &[&root], "Kept words.");
    let file = fake.text("deleted.txt", &[&root], "Deleted words.");
    let (desk, _) = crate::drive::desk::Desk::of_folder(&service, &fake, &root).await;
    let documents = format!("/api/sources/{}/documents", desk.source_id);
    let listed = items(&service, &desk.tenant.key, &documents).await;
    let path = format!("/api/documents/{}", named(&listed, "deleted.txt"));
    desk.tenant.delete(&path).await.expect(204);
    fake.write(&file, "Other deleted words.");
    fake.forget_requests();

    for wanted in [json!({}), json!({ "full": true })] {
        let run = desk.sync_as(wanted).await;
        assert_eq!(
            (run.state(), run.counts()),
            ("done", [0, 0, 1, 0, 0]),
            "{}",
            run.0
        );
    }
    assert_eq!(fake.requests("media"), 1, "the other file, by the full run");

    let exclusions = format!("/api/sources/{}/exclusions", desk.source_id);
    let listed = items(&service, &desk.tenant.key, &exclusions).await;
    let path = format!("{exclusions}/{}", listed[0]["id"].as_str().expect("an id"));
    desk.tenant.delete(&path).await.expect(204);
    assert_eq!(desk.sync().await.counts(), [1, 0, 1, 0, 0]);
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));
}

#[tokio::test]
async fn what_programs_and_people_bring_comes_back_when_they_bring_it() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("a.txt", "Words.").await;
    acme.delete(&format!("/api/documents/{id}")).await.expect(204);

    let id = desk.publish("a.txt", "Words.").await;

    assert_eq!(desk.document(&id).await["state"], "indexed");
    assert_eq!(
        crate::harness::stored::count_rows(&service, "source_exclusion").await,
        0
    );
}
