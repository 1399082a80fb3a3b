//! What a document shows: the original file, the text that was read, and the chunks it was cut into.

use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::harness::stored::{fixture, pdf};

/// Fails the test unless each chunk's text is the document's text at its span, counted in characters.
#[track_caller]
fn check_spans(document: &Value) -> usize {
    let characters: Vec<char> = document["text"].as_str().expect("text").chars().collect();
    let chunks = document["chunk_list"].as_array().expect("chunks");
    for chunk in chunks {
        let offset = |name: &str| chunk[name].as_u64().expect("an offset") as usize;
        let span: String = characters[offset("start")..offset("end")].iter().collect();
        assert_eq!(chunk["text"], json!(span), "chunk {}", chunk["position"]);
    }
    chunks.len()
}

#[tokio::test]
async fn the_original_comes_back_byte_by_byte_as_a_download() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let guide = fixture("demo/product-guide.pdf");
    let taken = desk.upload(&[("guide.pdf", &guide)]).await.expect(202).json();
    let path = format!(
        "/api/documents/{}/file",
        taken["items"][0]["id"].as_str().expect("an id")
    );

    let response = service
        .request(reqwest::Method::GET, &path, Some(&acme.key))
        .send()
        .await
        .expect("an answer");

    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/pdf");
    assert_eq!(
        headers["content-disposition"],
        "attachment; filename=\"guide.pdf\"; filename*=UTF-8''guide.pdf"
    );
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(
        headers["content-security-policy"]
            .to_str()
            .is_ok_and(|policy| policy.contains("sandbox")),
        "{headers:?}"
    );
    assert_eq!(headers["content-length"], guide.len().to_string().as_str());
    assert_eq!(response.bytes().await.expect("the body"), guide);
}

#[tokio::test]
async fn a_page_as_original_is_never_shown_as_a_page_of_ours() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk
        .publish(
            "page.html",
            "<!doctype html><title>Hi</title><p>Words.</p><script>alert(1)</script>",
        )
        .await;

    let file = acme.get(&format!("/api/documents/{id}/file")).await.expect(200);

    assert!(
        file.headers["content-disposition"]
            .to_str()
            .is_ok_and(|value| value.starts_with("attachment;"))
    );
    assert!(
        file.headers["content-security-policy"]
            .to_str()
            .is_ok_and(|policy| policy.contains("default-src 'none'") && policy.contains("sandbox"))
    );
}

#[tokio::test]
async fn the_name_of_a_download_cannot_forge_a_header() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    for (name, header) in [
        (
            "Preisliste für „Köln\".txt",
            "attachment; filename=\"Preisliste f_r _K_ln_.txt\"; filename*=UTF-8''Preisliste%20f%C3%BCr%20%E2%80%9EK%C3%B6ln%22.txt",
        ),
        (
            "a\"; filename=\"evil.exe.txt",
            "attachment; filename=\"a__ filename__evil.exe.txt\"; filename*=UTF-8''a%22%3B%20filename%3D%22evil.exe.txt",
        ),
        (
            "100% safe.txt",
            "attachment; filename=\"100_ safe.txt\"; filename*=UTF-8''100%25%20safe.txt",
        ),
    ] {
        let body = format!(
            "--cut\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\r\nThe text of {name}.\r\n--cut--\r\n",
            name.replace('"', "\\\"")
        );
        let request = service.request(
            reqwest::Method::POST,
            &format!("/api/chatbots/{}/documents", desk.id),
            Some(&acme.key),
        );
        let taken: Value = request
            .header("content-type", "multipart/form-data; boundary=cut")
            .body(body)
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        assert_eq!(taken["items"][0]["file_name"], name);

        let file = acme
            .get(&format!(
                "/api/documents/{}/file",
                taken["items"][0]["id"].as_str().expect("an id")
            ))
            .await
            .expect(200);

        assert_eq!(file.headers["content-disposition"], header);
        assert_eq!(file.headers.get_all("content-disposition").iter().count(), 1);
    }
}

#[tokio::test]
async fn every_chunk_is_the_text_at_its_span_counted_in_characters() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let many_bytes = (0..60)
        .map(|number| {
            format!(
                "## Größe {number} 📐\n\nДлина {number} мм — {}\n\n",
                "naïve façade 漢字 ".repeat(20)
            )
        })
        .collect::<String>();

    for (name, bytes) in [
        ("sizes.md", many_bytes.into_bytes()),
        ("company.md", fixture("demo/company.md")),
        ("delivery.html", fixture("demo/delivery-and-returns.html")),
        ("faq.csv", fixture("demo/faq.csv")),
        ("guide.pdf", fixture("demo/product-guide.pdf")),
        ("warranty.docx", fixture("demo/warranty-terms.docx")),
        ("windows.txt", fixture("broken/other-charset.txt")),
    ] {
        let taken = desk.upload(&[(name, &bytes)]).await.expect(202).json();
        service.drain_jobs().await;

        let document = desk
            .document(taken["items"][0]["id"].as_str().expect("an id"))
            .await;
        assert_eq!(document["state"], "indexed", "{name}: {document}");
        assert_eq!(
            document["chunks"].as_u64(),
            Some(check_spans(&document) as u64),
            "{name}"
        );
    }
}

#[tokio::test]
async fn chunks_carry_their_headings_and_those_of_a_pdf_their_pages() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let taken = desk
        .upload(&[
            ("guide.pdf", &fixture("demo/product-guide.pdf")),
            ("company.md", &fixture("demo/company.md")),
        ])
        .await
        .expect(202)
        .json();
    service.drain_jobs().await;

    let guide = desk
        .document(taken["items"][0]["id"].as_str().expect("an id"))
        .await;
    let pages: Vec<i64> = guide["chunk_list"]
        .as_array()
        .expect("chunks")
        .iter()
        .map(|chunk| chunk["page"].as_i64().expect("a page"))
        .collect();
    assert!(guide["pages"].as_i64() > Some(1), "{guide}");
    assert_eq!(
        (pages.first(), pages.last()),
        (Some(&1), guide["pages"].as_i64().as_ref())
    );
    assert!(pages.is_sorted(), "{pages:?}");

    let company = desk
        .document(taken["items"][1]["id"].as_str().expect("an id"))
        .await;
    assert_eq!(company["title"], "About Alder & Finch");
    assert!(company["pages"].is_null() && company["chunk_list"][0]["page"].is_null());
    let headings: Vec<&str> = company["chunk_list"]
        .as_array()
        .expect("chunks")
        .iter()
        .filter_map(|chunk| chunk["heading"].as_str())
        .collect();
    assert!(
        headings
            .iter()
            .any(|heading| heading.contains("About Alder & Finch › ")),
        "{headings:?}"
    );
}

#[tokio::test]
async fn the_chunks_of_a_long_document_come_in_pages() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let text: String = (0..520)
        .map(|number| format!("# Part {number}\n\n{}\n\n", format!("word{number} ").repeat(150)))
        .collect();
    let id = desk.publish("long.md", &text).await;

    let first = desk.document(&id).await;
    assert_eq!(first["state"], "indexed", "{}", first["error"]);
    let next = first["next_chunk"].as_i64().expect("more chunks");
    let second = acme
        .get(&format!("/api/documents/{id}?from_chunk={next}"))
        .await
        .expect(200)
        .json();

    assert_eq!(check_spans(&first), 500);
    assert_eq!(
        check_spans(&second) as i64,
        first["chunks"].as_i64().expect("a count") - 500
    );
    assert_eq!(
        (&second["chunk_list"][0]["position"], &second["next_chunk"]),
        (&json!(next), &Value::Null)
    );
    acme.get(&format!("/api/documents/{id}?from_chunk=x"))
        .await
        .expect(422);
    acme.get(&format!("/api/documents/{id}?page=2")).await.expect(422);
}

#[tokio::test]
async fn a_chatbots_documents_come_in_pages_newest_first() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let (desk, other) = (acme.chatbot("Desk").await, acme.chatbot("Other").await);
    other.publish("elsewhere.txt", "Nothing of the desk.").await;
    for number in 1..=5 {
        desk.upload(&[(&format!("{number}.txt"), format!("Text {number}.").as_bytes())])
            .await
            .expect(202);
    }

    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = acme
            .get(&format!("/api/chatbots/{}/documents?limit=2{cursor}", desk.id))
            .await
            .expect(200)
            .json();
        names.extend(
            page["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|item| item["file_name"].as_str().expect("a name").to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }

    assert_eq!(names, ["5.txt", "4.txt", "3.txt", "2.txt", "1.txt"]);
    acme.get(&format!("/api/chatbots/{}/documents?cursor=x", desk.id))
        .await
        .expect(422);
}

#[tokio::test]
async fn a_document_says_how_many_of_its_pages_are_pictures() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let mixed = pdf(&[Some("The first page has words."), None, None]);
    let taken = desk
        .upload(&[("mixed.pdf", &mixed), ("plain.txt", b"Words.")])
        .await
        .expect(202)
        .json();
    service.drain_jobs().await;

    let shown = async |index: usize| {
        let document = desk
            .document(taken["items"][index]["id"].as_str().expect("an id"))
            .await;
        (
            document["state"].clone(),
            document["pages"].clone(),
            document["scanned_pages"].clone(),
        )
    };
    assert_eq!(shown(0).await, (json!("indexed"), json!(3), json!(2)));
    assert_eq!(shown(1).await, (json!("indexed"), Value::Null, Value::Null));
}
