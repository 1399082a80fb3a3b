//! What becomes of files that are taken in: one document each, by content and under a harmless name, once.

use frontdesk::db::DatabaseUrl;
use reqwest::Method;
use serde_json::{Value, json};

use super::{PNG, expect_nothing_left, path_of};
use crate::harness::app::{Chatbot, Reply, TestApp, TestOptions};
use crate::harness::databases::run_as_owner;
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{count_rows, fixture, stored_files};

/// Uploads files under exactly these names, as no well-behaved client would send them.
async fn upload_raw(desk: &Chatbot<'_, '_>, names: &[&str]) -> Reply {
    let mut body = String::new();
    for (number, name) in names.iter().enumerate() {
        body += &format!(
            "--cut\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\nThe text of file {number}.\r\n"
        );
    }
    body += "--cut--\r\n";
    let request = desk
        .tenant
        .service
        .request(Method::POST, &path_of(desk), Some(&desk.tenant.key));
    Reply::read(
        request
            .header("content-type", "multipart/form-data; boundary=cut")
            .body(body)
            .send()
            .await
            .expect("the service answers"),
    )
    .await
}

fn field<'a>(items: &'a Value, name: &str) -> Vec<&'a str> {
    items["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item[name].as_str().expect("text"))
        .collect()
}

#[tokio::test]
async fn each_file_of_an_upload_becomes_a_document_of_its_own_in_order() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let taken = desk
        .upload(&[
            ("a.md", b"# Returns\n\nWithin 30 days."),
            ("b.txt", b"Plain words about ladders."),
            ("c.csv", b"q,a\nWhere?,Here.\n"),
        ])
        .await
        .expect(202)
        .json();

    assert_eq!(field(&taken, "file_name"), ["a.md", "b.txt", "c.csv"]);
    assert_eq!(field(&taken, "state"), ["queued", "queued", "queued"]);
    assert_eq!(field(&taken, "format"), ["markdown", "text", "csv"]);
    assert_eq!(service.drain_jobs().await, 3);
    let listed = acme.get(&path_of(&desk)).await.expect(200).json();
    assert_eq!(
        field(&listed, "file_name"),
        ["c.csv", "b.txt", "a.md"],
        "newest first"
    );
    assert_eq!(field(&listed, "state"), ["indexed", "indexed", "indexed"]);
    assert!(
        listed["items"]
            .as_array()
            .expect("items")
            .iter()
            .all(|item| item["chunks"].as_i64() > Some(0) && item["tokens"].as_i64() > Some(0)),
        "{listed}"
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_name_is_cleaned_for_show_and_never_becomes_a_path() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let before: Vec<_> = std::fs::read_dir(service.data_dir())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();

    let names = [
        "../../etc/passwd",
        "C:\\\\Users\\\\me\\\\prices.txt",
        "%2e%2e%2fsecret.txt",
        "/abs/olute.md",
        "..",
        "a\u{202e}fdp.txt",
        "nul\0byte.txt",
    ];
    let taken = upload_raw(&desk, &names).await;

    // A NUL in a header makes the whole body malformed; that is an answer too.
    let taken = if taken.status == 400 {
        let names: Vec<&str> = names.into_iter().filter(|name| !name.contains('\0')).collect();
        upload_raw(&desk, &names).await.expect(202).json()
    } else {
        taken.expect(202).json()
    };
    for name in field(&taken, "file_name") {
        assert!(
            !name.is_empty() && !name.contains(['/', '\\', '\0', '\u{202e}']) && !name.starts_with('.'),
            "{name:?}"
        );
    }
    service.drain_jobs().await;
    acme.check_stores_agree().await;
    let after: Vec<_> = std::fs::read_dir(service.data_dir())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(after.len(), before.len(), "{after:?}");
}

#[tokio::test]
async fn content_decides_the_type_and_not_the_name() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let guide = fixture("demo/product-guide.pdf");

    let taken = desk
        .upload(&[("guide.txt", &guide), ("photo.pdf", PNG)])
        .await
        .expect(202)
        .json();
    service.drain_jobs().await;

    let document = desk
        .document(taken["items"][0]["id"].as_str().expect("an id"))
        .await;
    assert_eq!(
        (&document["format"], &document["state"]),
        (&json!("pdf"), &json!("indexed"))
    );
    let photo = desk
        .document(taken["items"][1]["id"].as_str().expect("an id"))
        .await;
    assert_eq!(
        (&photo["state"], &photo["error"]["code"]),
        (&json!("failed"), &json!("unsupported_type"))
    );
    assert!(
        photo["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("picture") && message.contains("extract.ocr_program")),
        "{photo}"
    );
}

#[tokio::test]
async fn the_same_bytes_again_do_no_work() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("returns.md", "# Returns\n\nWithin 30 days.").await;
    let other = desk
        .publish("hours.md", "# Hours\n\nOpen from ten to five.")
        .await;
    desk.publish("hours.md", "# Returns\n\nWithin 30 days.").await;
    embedder.take_documents();
    let jobs = count_rows(&service, "job").await;

    for (name, known) in [
        ("returns.md", &id),
        ("copy of returns.md", &id),
        ("hours.md", &other),
    ] {
        let again = desk
            .upload(&[(name, b"# Returns\n\nWithin 30 days.")])
            .await
            .expect(202)
            .json();
        assert_eq!(
            (&again["items"][0]["id"], &again["items"][0]["state"]),
            (&json!(known), &json!("indexed")),
            "{name}"
        );
    }

    assert_eq!(service.drain_jobs().await, 0);
    assert_eq!(count_rows(&service, "job").await, jobs);
    assert_eq!(embedder.take_documents(), Vec::<String>::new());
    acme.check_stores_agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_new_name_uploaded_many_times_at_once_is_one_document() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let texts: Vec<String> = (0..8)
        .map(|number| format!("Version {number} of the price list."))
        .collect();

    let uploads = texts.iter().map(|text| async {
        desk.upload(&[("prices.txt", text.as_bytes())])
            .await
            .expect(202)
            .json()
    });
    let taken = futures::future::join_all(uploads).await;

    assert!(
        taken
            .iter()
            .all(|reply| reply["items"][0]["id"] == taken[0]["items"][0]["id"]),
        "{taken:?}"
    );
    service.drain_jobs().await;
    assert_eq!(count_rows(&service, "document").await, 1);
    assert_eq!(count_rows(&service, "chunk").await, 1);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_chatbot_that_is_full_takes_new_versions_but_no_new_documents() {
    let service = TestOptions::default()
        .set("limits.documents_per_chatbot", 2)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let reply = desk
        .upload(&[("1.txt", b"one"), ("2.txt", b"two"), ("3.txt", b"three")])
        .await
        .expect(409);
    assert_eq!(reply.code(), "too_many_documents");
    expect_nothing_left(&service).await;

    desk.upload(&[("1.txt", b"one"), ("2.txt", b"two")])
        .await
        .expect(202);
    desk.upload(&[("1.txt", b"one and a half"), ("2.txt", b"two")])
        .await
        .expect(202);
    desk.upload(&[("3.txt", b"three")]).await.expect(409);
    service.drain_jobs().await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_commit_that_may_have_gone_through_leaves_the_files_in_their_place() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    veto_commits_of_documents(&service).await;

    let reply = desk.upload(&[("a.txt", b"Words.")]).await;

    assert!(reply.status.is_server_error(), "{}", reply.text);
    assert_eq!(count_rows(&service, "document").await, 0);
    // Whether the rows are there cannot be told from an answer that was lost; the sweep looks at them.
    assert_eq!(stored_files(&service.data_dir()).len(), 1);
}

/// From now on the statements of a transaction that makes a document succeed, and its commit does not.
async fn veto_commits_of_documents(service: &TestApp) {
    let tables = "create table nobody (id bigint primary key);
                  create table veto (n bigint references nobody (id) deferrable initially deferred)";
    let (url, trigger) = match service.app.config.database.url.as_str() {
        "" => (
            DatabaseUrl::Sqlite(service.data_dir().join("frontdesk.db")),
            "create trigger veto after insert on document begin insert into veto values (1); end",
        ),
        url => (
            DatabaseUrl::Postgres(url.to_owned()),
            "create function veto() returns trigger language plpgsql security definer as $$ begin insert into veto values (1); return new; end $$;
             create trigger veto after insert on document for each row execute function veto()",
        ),
    };
    for statements in [tables, trigger] {
        run_as_owner(&url, statements).await;
    }
}
