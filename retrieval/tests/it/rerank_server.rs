//! Rerankers behind an address against a scripted server: what each is asked, scores by index, and every way to fail.

use std::time::{Duration, Instant};

use retrieval::rerank::{
    Protocol, RerankError, RerankServer, RerankServerOptions, Reranked, Reranker, Spent,
};
use serde_json::json;

use crate::scripted_server::{Answer, ScriptedServer};

async fn rerank(
    server: &ScriptedServer,
    protocol: Protocol,
    texts: &[&str],
) -> Result<Reranked, RerankError> {
    let options = RerankServerOptions {
        protocol,
        base_url: server.base_url.parse().expect("an address"),
        api_key: Some("sk-test".to_owned()),
        model: "rerank-1".to_owned(),
        timeout: Duration::from_secs(2),
    };
    let reranker = RerankServer::new(options).expect("usable options");
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    reranker.rerank("How long?".to_owned(), texts).await
}

fn body(value: serde_json::Value) -> Answer {
    Answer::Body(value.to_string())
}

#[tokio::test]
async fn each_server_is_asked_as_it_wants_and_its_scores_come_back_by_index() {
    let results = json!([{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.2}]);
    let documents = json!({"model": "rerank-1", "query": "How long?", "documents": ["a", "b"]});
    let with = |name: &str, value: bool| {
        let mut request = documents.clone();
        request[name] = json!(value);
        request
    };
    for (protocol, answer, request, tokens, searches) in [
        (
            Protocol::Cohere,
            json!({"id": "x", "results": results, "meta": {"billed_units": {"search_units": 1}}}),
            documents.clone(),
            None,
            1,
        ),
        (
            Protocol::Jina,
            json!({"model": "rerank-1", "usage": {"total_tokens": 77}, "results": results}),
            with("return_documents", false),
            Some(77),
            1,
        ),
        (
            Protocol::Voyage,
            json!({"object": "list", "data": results, "usage": {"total_tokens": 78}}),
            with("truncation", true),
            Some(78),
            1,
        ),
        (
            Protocol::Tei,
            json!([{"index": 1, "score": 0.9, "text": null}, {"index": 0, "score": 0.2}]),
            json!({"query": "How long?", "texts": ["a", "b"], "truncate": true}),
            None,
            1,
        ),
    ] {
        let server = ScriptedServer::start([body(answer)]).await;

        let reranked = rerank(&server, protocol, &["a", "b"]).await.expect("scores");

        assert_eq!(reranked.scores, [Some(0.2), Some(0.9)], "{protocol:?}");
        assert_eq!(reranked.cost.searches, searches, "{protocol:?}");
        assert_eq!(
            (tokens.unwrap_or(reranked.cost.tokens), reranked.cost.reported),
            (reranked.cost.tokens, protocol != Protocol::Tei),
            "{protocol:?}"
        );
        assert!(reranked.cost.tokens > 0, "counted where nobody says it");
        let asked = &server.requests()[0];
        assert_eq!(asked.body, request, "{protocol:?}");
        assert!(asked.head.starts_with("POST /v1/rerank "), "{}", asked.head);
        assert!(
            asked
                .head
                .to_lowercase()
                .contains("authorization: bearer sk-test")
        );
    }
}

#[tokio::test]
async fn a_server_that_takes_few_texts_gets_them_in_several_requests() {
    let server = ScriptedServer::start(vec![Answer::Scores; 3]).await;
    let texts: Vec<String> = (1..=70).map(|length| "w".repeat(length)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();

    let reranked = rerank(&server, Protocol::Tei, &texts).await.expect("scores");

    let lengths: Vec<Option<f32>> = (1_u8..=70).map(|length| Some(f32::from(length))).collect();
    assert_eq!(reranked.scores, lengths);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_server_may_send_the_texts_back() {
    let text = "Goods < 30 kg & returned within 30 days. ".repeat(60);
    let texts = vec![text.as_str(); 50];
    let escaped = text.replace('<', "\\u003c").replace('&', "\\u0026");
    let results: Vec<String> = (0..texts.len())
        .map(|index| {
            format!(r#"{{"index":{index},"document":{{"text":"{escaped}"}},"relevance_score":0.5}}"#)
        })
        .collect();
    let answer = format!(r#"{{"results":[{}]}}"#, results.join(","));
    assert!(answer.len() > 100_000);
    let server = ScriptedServer::start(vec![Answer::Body(answer)]).await;

    let reranked = rerank(&server, Protocol::Cohere, &texts).await.expect("scores");

    assert_eq!(reranked.scores, vec![Some(0.5); 50]);
}

#[tokio::test]
async fn what_a_server_left_out_has_no_score() {
    let answer = json!({"results": [{"index": 2, "relevance_score": 0.5}]});
    let server = ScriptedServer::start([body(answer)]).await;

    let reranked = rerank(&server, Protocol::Cohere, &["a", "b", "c"]).await;

    assert_eq!(reranked.expect("scores").scores, [None, None, Some(0.5)]);
}

#[tokio::test]
async fn a_server_that_leaves_out_all_texts_gave_no_order() {
    for (protocol, answer) in [
        (Protocol::Cohere, json!({"results": []})),
        (Protocol::Voyage, json!({"data": []})),
        (Protocol::Tei, json!([])),
    ] {
        let server = ScriptedServer::start([body(answer)]).await;

        let refused = rerank(&server, protocol, &["a", "b"]).await;

        assert!(
            matches!(refused, Err(RerankError::Unusable { .. })),
            "{protocol:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn scores_of_texts_that_were_not_asked_about_are_refused() {
    for answer in [
        json!({"results": [{"index": 2, "relevance_score": 0.5}]}),
        json!({"results": [{"index": 0, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.4}]}),
        json!({"results": [{"index": -1, "relevance_score": 0.5}]}),
        json!({"results": [{"index": 0, "relevance_score": 1e99}]}),
        json!({"results": [{"index": 0}]}),
        json!({"scores": [0.5, 0.4]}),
        json!("fine"),
    ] {
        let server = ScriptedServer::start([body(answer.clone())]).await;

        let refused = rerank(&server, Protocol::Cohere, &["a", "b"]).await;

        assert!(
            matches!(refused, Err(RerankError::Unusable { .. })),
            "{answer}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again_when_it_says() {
    let busy = Answer::Status(429, "retry-after: 0.3\r\n", "{\"error\": \"busy\"}");
    let server = ScriptedServer::start([busy, Answer::Scores]).await;
    let started = Instant::now();

    let reranked = rerank(&server, Protocol::Tei, &["a", "bb"])
        .await
        .expect("scores");

    assert_eq!(reranked.scores, [Some(1.0), Some(2.0)]);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn nobody_waits_longer_than_the_time_limit() {
    let patient = Answer::Status(503, "retry-after: 60\r\n", "");
    for (answers, is_paid) in [
        (vec![Answer::Silence], Spent::Unknown),
        (vec![patient], Spent::Nothing),
        (vec![Answer::Cut; 3], Spent::Nothing),
    ] {
        let server = ScriptedServer::start(answers).await;
        let started = Instant::now();

        let refused = rerank(&server, Protocol::Jina, &["a", "b"]).await;

        let error = refused.expect_err("no order");
        assert!(error.outage().is_some(), "{error:?}");
        assert_eq!(error.spent(), is_paid, "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(4));
    }
}

#[tokio::test]
async fn a_refusal_is_told_by_its_status_and_not_repeated() {
    let answer = Answer::Status(401, "", "{\"message\": \"invalid api token\"}");
    let server = ScriptedServer::start([answer]).await;

    let refused = rerank(&server, Protocol::Cohere, &["a", "b"]).await;

    let Err(RerankError::Refused { reason }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(reason, "it does not accept the API key (status 401)");
    assert_eq!(server.requests().len(), 1);
}
