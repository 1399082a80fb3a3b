//! What a further crawl costs and changes: as much as the site did, and no more.

use std::collections::BTreeSet;

use fixture_site::Site;
use frontdesk::knowledge::sync::RunState;
use reqwest::Method;
use serde_json::{Value, json};

use super::{chunks, desk_for, options_for, site};
use crate::harness::embedders::WatchedEmbedder;
use crate::sync::desk::{Desk, counts};

/// An article that no other address shows.
fn plain_article(site: &Site) -> usize {
    site.plan()
        .all_articles()
        .find(|article| article % 50 == 30)
        .expect("the site is large enough")
}

/// The ids of the documents that an answer cites.
async fn cited(desk: &Desk<'_>, question: &str) -> Vec<String> {
    let body = json!({ "chatbot_id": desk.chatbot_id, "message": question });
    let reply = desk
        .service
        .send(Method::POST, "/api/chat/message", Some(&desk.key), Some(body))
        .await
        .expect(200)
        .json();
    reply["citations"]
        .as_array()
        .expect("citations")
        .iter()
        .filter_map(|citation| citation["document_id"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn an_unchanged_site_is_not_embedded_and_hardly_sent_again() {
    let site = site(240).await;
    let embedder = WatchedEmbedder::new();
    let service = options_for(&site).embedder(embedder.clone()).start().await;
    let desk = desk_for(&service, &site).await;
    let first = desk.sync().await;
    let before = chunks(&desk).await;
    assert!(!embedder.take_documents().is_empty());
    site.take_counts();

    let run = desk.sync().await;

    assert_eq!(counts(&run)[..2], [0, 0], "{run:?}");
    assert_eq!((run.unchanged_count, run.removed_count), (first.new_count, 0));
    assert_eq!((run.embedding_calls, embedder.take_documents()), (0, Vec::new()));
    let asked = site.counts();
    assert!(asked.not_modified * 100 >= asked.requests * 95, "{asked:?}");
    assert_eq!(chunks(&desk).await, before);
}

#[tokio::test]
async fn one_changed_paragraph_is_all_that_is_embedded_again() {
    let site = site(120).await;
    let embedder = WatchedEmbedder::new();
    let service = options_for(&site).embedder(embedder.clone()).start().await;
    let desk = desk_for(&service, &site).await;
    desk.sync().await;
    let (article, before) = (plain_article(&site), chunks(&desk).await);
    let path = site.plan().path(article);
    let old_marker = site.passage_marker(article);
    embedder.take_documents();
    site.change(article);

    let run = desk.sync().await;

    assert_eq!(counts(&run)[..2], [0, 1], "{run:?}");
    let after = chunks(&desk).await;
    let known: BTreeSet<&String> = before[&path].iter().collect();
    let changed: Vec<&String> = after[&path].iter().filter(|text| !known.contains(text)).collect();
    let embedded = embedder.take_documents();
    assert_eq!(embedded.len(), changed.len());
    assert!(changed.len() < after[&path].len(), "{after:?}");
    for text in &changed {
        assert!(
            embedded.iter().any(|embedded| embedded.contains(text.as_str())),
            "{text}"
        );
    }
    let all = after[&path].join("\n");
    assert!(all.contains(&site.passage_marker(article)) && !all.contains(&old_marker));
    let others = |texts: &std::collections::BTreeMap<String, Vec<String>>| {
        let mut texts = texts.clone();
        texts.remove(&path);
        texts
    };
    assert_eq!(others(&after), others(&before));
}

#[tokio::test]
async fn no_answer_cites_a_page_after_the_run_that_missed_it() {
    let site = site(120).await;
    let service = options_for(&site).without_embedder().start().await;
    let desk = desk_for(&service, &site).await;
    desk.sync().await;
    let article = plain_article(&site);
    let id = desk.documents().await[&site.plan().path(article)].0.to_string();
    let question = format!(
        "Which page carries the lot number {}?",
        site.plan().marker(article)
    );
    assert!(cited(&desk, &question).await.contains(&id));
    site.remove(article);

    let run = desk.sync().await;

    assert_eq!(run.removed_count, 1, "{run:?}");
    assert!(!cited(&desk, &question).await.contains(&id));
    assert!(!desk.found(&question).await.contains(&site.plan().marker(article)));
    let expected: Vec<String> = site
        .manifest()
        .expected
        .into_iter()
        .map(|page| page.path)
        .collect();
    let held = desk.paths().await;
    assert!(expected.iter().all(|path| held.contains(path)));
}

#[tokio::test]
async fn a_bad_spell_or_a_sudden_loss_removes_nothing() {
    let site = site(120).await;
    let service = options_for(&site).start().await;
    let desk = desk_for(&service, &site).await;
    desk.sync().await;
    let before = chunks(&desk).await;

    site.fail(30, 503);
    let during = desk.sync().await;
    assert_eq!(
        (during.state, during.removed_count),
        (RunState::Partial, 0),
        "{during:?}"
    );
    assert_eq!(chunks(&desk).await, before);

    site.fail(0, 503);
    site.shrink(80);
    let shrunk = desk.sync().await;
    assert_eq!(
        (shrunk.state, shrunk.removed_count),
        (RunState::Partial, 0),
        "{shrunk:?}"
    );
    assert!(shrunk.held_count > 60, "{shrunk:?}");
    assert_eq!(chunks(&desk).await, before);

    site.restore();
    let well = desk.sync().await;
    assert_eq!(counts(&well)[..2], [0, 0], "{well:?}");
    assert_eq!(chunks(&desk).await, before);
}

#[tokio::test]
async fn answers_of_a_crawl_are_found_by_their_page() {
    let site = site(60).await;
    let service = options_for(&site).start().await;
    let desk = desk_for(&service, &site).await;
    desk.sync().await;

    let reply: Value = desk
        .service
        .send(
            Method::POST,
            &format!("/api/chatbots/{}/search", desk.chatbot_id),
            Some(&desk.key),
            Some(json!({ "query": "сколько раз дубовый стол покрывают маслом" })),
        )
        .await
        .expect(200)
        .json();

    assert!(
        reply["items"][0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("Дубовый стол")),
        "{reply}"
    );
}
