//! The remote embedder against a scripted server: order, batches, and the ways in which a server can fail. Who is at fault where it
//! refuses: `openai_refusals`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use retrieval::embed::{
    Asker, EmbedError, Embedder, OpenAiEmbedder, OpenAiEmbedderOptions, Prefixes, Protocol, estimate_tokens,
};
use serde_json::json;

use crate::scripted_server::{Answer, ScriptedServer};

pub(crate) fn embedder(server: &ScriptedServer) -> OpenAiEmbedder {
    embedder_with(server, |_| {})
}

pub(crate) fn embedder_with(
    server: &ScriptedServer,
    change: impl FnOnce(&mut OpenAiEmbedderOptions),
) -> OpenAiEmbedder {
    let mut options = OpenAiEmbedderOptions {
        protocol: Protocol::OpenAi,
        base_url: server.base_url.parse().expect("an address"),
        api_key: Some("sk-test".to_owned()),
        model: "text-embedding-3-small".to_owned(),
        dimension: 3,
        batch_size: 4,
        timeout: Duration::from_secs(20),
        max_tokens: 50,
        prefixes: Prefixes::default(),
        languages: None,
    };
    change(&mut options);
    OpenAiEmbedder::new(options).expect("usable options")
}

pub(crate) fn texts(count: usize) -> Vec<String> {
    (0..count).map(|n| "w".repeat(n + 1)).collect()
}

/// The direction the scripted server gives to text `n` of [`texts`], at `place` in its request.
pub(crate) fn expected(place: usize, n: usize) -> Vec<f32> {
    let vector = [place as f32, (n + 1) as f32, 1.0];
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.map(|value| value / norm).to_vec()
}

fn assert_close(actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    assert!(
        actual.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6),
        "{actual:?} is not {expected:?}"
    );
}

#[tokio::test]
async fn vectors_come_back_by_index_in_the_order_of_the_texts_over_all_batches() {
    let server = ScriptedServer::start([]).await;

    let embeddings = embedder(&server)
        .embed_documents(Asker::Service, texts(10))
        .await
        .expect("vectors");

    assert_eq!(embeddings.vectors.len(), 10);
    for (n, vector) in embeddings.vectors.iter().enumerate() {
        assert_close(vector, &expected(n % 4, n));
    }
    assert_eq!((embeddings.tokens, embeddings.reported), (100, true));
    let mut sizes: Vec<usize> = server
        .requests()
        .iter()
        .map(|request| request.body["input"].as_array().map_or(0, Vec::len))
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 4, 4]);
}

#[tokio::test]
async fn a_request_is_what_the_contract_says() {
    let server = ScriptedServer::start([]).await;

    embedder(&server)
        .embed_query(Asker::Service, "How long?".to_owned())
        .await
        .expect("a vector");

    let request = server.requests().remove(0);
    assert!(
        request.head.starts_with("POST /v1/embeddings HTTP/1.1\r\n"),
        "{}",
        request.head
    );
    assert!(
        request
            .head
            .to_lowercase()
            .contains("authorization: bearer sk-test\r\n"),
        "{}",
        request.head
    );
    let body = json!({"model": "text-embedding-3-small", "input": ["How long?"], "encoding_format": "float"});
    assert_eq!(request.body, body);
}

#[tokio::test]
async fn what_the_model_reads_before_a_text_is_sent_with_it() {
    for protocol in [Protocol::OpenAi, Protocol::Tei] {
        let vector = || match protocol {
            Protocol::OpenAi => Answer::Vectors,
            Protocol::Tei => Answer::Body("[[0.0, 2.0, 0.0]]".to_owned()),
        };
        let server = ScriptedServer::start([vector(), vector()]).await;
        let e5 = embedder_with(&server, |options| {
            options.protocol = protocol;
            options.prefixes = Prefixes {
                query: "query: ".to_owned(),
                document: "passage: ".to_owned(),
            };
        });

        let asked = e5.embed_query(Asker::Service, "How long?".to_owned()).await;
        let told = e5
            .embed_documents(Asker::Service, vec!["30 days.".to_owned()])
            .await;

        assert!(asked.is_ok() && told.is_ok(), "{asked:?} {told:?}");
        let sent: Vec<String> = server
            .requests()
            .iter()
            .map(|request| {
                let texts = request.body.get("input").or(request.body.get("inputs"));
                texts.expect("texts")[0].as_str().expect("a text").to_owned()
            })
            .collect();
        assert_eq!(sent, ["query: How long?", "passage: 30 days."]);
        assert_eq!(
            (e5.query_prefix(), e5.document_prefix()),
            ("query: ", "passage: ")
        );
        assert_eq!(e5.max_tokens(), 50 - estimate_tokens("passage: "));
    }
}

#[tokio::test]
async fn long_and_empty_texts_are_made_acceptable() {
    let server = ScriptedServer::start([]).await;
    let long = "many words ".repeat(500);

    embedder(&server)
        .embed_documents(Asker::Service, vec![long, String::new()])
        .await
        .expect("vectors");

    let input = server.requests()[0].body["input"].clone();
    let first = input[0].as_str().expect("a text");
    assert!(estimate_tokens(first) <= 50 && first.len() > 100);
    assert_eq!(input[1], " ");
}

#[tokio::test]
async fn trouble_that_passes_is_tried_again() {
    let busy = Answer::Status(429, "retry-after: 0\r\n", "{}");
    for trouble in [
        busy,
        Answer::Status(503, "", "<html>"),
        Answer::Status(500, "", ""),
        Answer::Cut,
    ] {
        let server = ScriptedServer::start([trouble.clone(), trouble]).await;

        let embeddings = embedder(&server)
            .embed_query(Asker::Service, "again".to_owned())
            .await
            .expect("the third time");

        assert_eq!(embeddings.vectors.len(), 1);
        assert_eq!(server.requests().len(), 3);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_more_time_than_there_is_ends_the_call_at_once() {
    let server = ScriptedServer::start([Answer::Status(429, "retry-after: 90\r\n", "{}")]).await;
    let started = Instant::now();

    let error = embedder(&server)
        .embed_query(Asker::Service, "now".to_owned())
        .await
        .expect_err("no time");

    let EmbedError::Unavailable { retry_after, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(90)));
    assert_eq!(server.requests().len(), 1);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn trouble_that_stays_ends_after_a_few_attempts() {
    let server = ScriptedServer::start((0..9).map(|_| Answer::Status(500, "", ""))).await;

    let error = embedder(&server)
        .embed_query(Asker::Service, "never".to_owned())
        .await
        .expect_err("always down");

    assert!(matches!(error, EmbedError::Unavailable { .. }), "{error}");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    let server = ScriptedServer::start([Answer::Silence]).await;
    let impatient = embedder_with(&server, |options| options.timeout = Duration::from_millis(200));

    let error = impatient
        .embed_query(Asker::Service, "hello?".to_owned())
        .await
        .expect_err("silence");

    assert!(
        error.is_too_late() && error.may_have_cost() && error.spent().0 > 0,
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let server = ScriptedServer::start([]).await;
    let nobody = embedder_with(&server, |options| {
        options.base_url = "http://127.0.0.1:9/v1".parse().expect("an address");
        options.timeout = Duration::from_millis(300);
    });

    let error = nobody
        .embed_query(Asker::Service, "anyone?".to_owned())
        .await
        .expect_err("nobody");

    assert!(matches!(error, EmbedError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn who_may_not_ask_learns_the_status_and_nothing_that_the_server_said() {
    const SAID: &str =
        r#"{"error": {"message": "Incorrect API key provided: sk-test-SECRET, see /srv/app/x.py:33"}}"#;
    let elsewhere = Answer::Status(307, "location: http://127.0.0.1:9/\r\n", "");
    for (answer, expected) in [
        (
            Answer::Status(401, "", SAID),
            "it does not accept the API key (status 401)",
        ),
        (
            Answer::Status(402, "", SAID),
            "the account there has nothing left (status 402)",
        ),
        (
            Answer::Status(404, "", SAID),
            "it knows no such model or address (status 404)",
        ),
        (elsewhere, "it does not accept the request (status 307)"),
    ] {
        let server = ScriptedServer::start([answer]).await;

        let error = embedder(&server)
            .embed_query(Asker::Service, "refused".to_owned())
            .await
            .expect_err("denied");

        assert_eq!(error.denial(), Some(expected), "{error:?}");
        assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn wrong_vectors_are_not_taken() {
    let with_data = |data: serde_json::Value| Answer::Body(json!({ "data": data }).to_string());
    let good = json!([1.0, 0.0, 0.0]);
    let wrong = [
        with_data(json!([])),
        with_data(json!([{"index": 0, "embedding": [0.0, 0.0, 0.0]}])),
        with_data(json!([{"index": 0, "embedding": [1e39, 0.0, 0.0]}])),
        with_data(json!([{"index": 1, "embedding": good}])),
        with_data(json!([{"index": 0, "embedding": good}, {"index": 0, "embedding": good}])),
        with_data(json!([{"embedding": good}])),
        with_data(json!([{"index": 0, "embedding": [null, 0.0, 0.0]}])),
        Answer::Body("<html>not JSON</html>".to_owned()),
        Answer::Body("x".repeat(1 << 20)),
    ];
    for (case, answer) in wrong.into_iter().enumerate() {
        let server = ScriptedServer::start([answer]).await;

        let error = embedder(&server)
            .embed_query(Asker::Service, "text".to_owned())
            .await
            .expect_err("not taken");

        assert!(error.may_have_cost(), "case {case}: {error}");
        assert_eq!(server.requests().len(), 1, "case {case}");
    }
}

#[tokio::test]
async fn without_the_servers_figure_tokens_are_estimated() {
    let reply = json!({"data": [{"index": 0, "embedding": [0.0, 3.0, 4.0]}]}).to_string();
    let server = ScriptedServer::start([Answer::Body(reply)]).await;

    let embeddings = embedder(&server)
        .embed_query(Asker::Service, "three short words".to_owned())
        .await
        .expect("a vector");

    assert_close(&embeddings.vectors[0], &[0.0, 0.6, 0.8]);
    assert_eq!(
        (embeddings.tokens, embeddings.reported),
        (estimate_tokens("three short words") as u64, false)
    );
}

#[tokio::test]
async fn bulks_share_a_number_of_requests_and_a_question_goes_past_them() {
    let server = ScriptedServer::start(vec![Answer::Silence; 8]).await;
    let embedder = Arc::new(embedder_with(&server, |options| {
        options.batch_size = 1;
        options.timeout = Duration::from_secs(5);
    }));
    let bulks: Vec<_> = (0..4)
        .map(|_| {
            let embedder = embedder.clone();
            tokio::spawn(async move { embedder.embed_documents(Asker::Service, texts(4)).await })
        })
        .collect();
    while server.requests().len() < 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let question = embedder.embed_query(Asker::Service, "now".to_owned()).await;

    assert!(question.is_ok(), "{question:?}");
    assert_eq!(server.requests().len(), 9, "eight of bulks, and the question");
    bulks.into_iter().for_each(|bulk| bulk.abort());
}

#[tokio::test]
async fn text_embeddings_inference_is_asked_in_its_own_words() {
    let overloaded = Answer::Status(
        429,
        "",
        r#"{"error": "Model is overloaded", "error_type": "Overloaded"}"#,
    );
    let vectors = Answer::Body("[[0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]".to_owned());
    let server = ScriptedServer::start([overloaded, vectors]).await;
    let embedder = embedder_with(&server, |options| options.protocol = Protocol::Tei);

    let embeddings = embedder
        .embed_documents(Asker::Service, texts(2))
        .await
        .expect("vectors");

    assert_eq!(embeddings.vectors, [vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 1.0]]);
    assert!(!embeddings.reported, "it tells no tokens");
    let requests = server.requests();
    assert_eq!(requests.len(), 2, "overload passes");
    assert!(
        requests[1].head.starts_with("POST /v1/embed "),
        "{}",
        requests[1].head
    );
    assert_eq!(
        requests[1].body,
        json!({"inputs": ["w", "ww"], "truncate": true, "normalize": true})
    );
}

#[tokio::test]
async fn text_embeddings_inference_must_answer_for_every_text_and_tells_which_it_refuses() {
    let validation = r#"{"error": "`inputs` cannot be empty", "error_type": "Validation"}"#;
    let answers = [
        Answer::Body("[[0.0, 2.0, 0.0]]".to_owned()),
        Answer::Status(422, "", validation),
        Answer::Body("[[0.0, 2.0, 0.0]]".to_owned()),
        Answer::Status(422, "", validation),
        Answer::Status(422, "", validation),
    ];
    let server = ScriptedServer::start(answers).await;
    let embedder = embedder_with(&server, |options| options.protocol = Protocol::Tei);

    let short = embedder.embed_documents(Asker::Service, texts(2)).await;
    let short = short.expect_err("a text without a vector");
    assert!(short.may_have_cost(), "{short:?}");
    assert_eq!(
        short.spent(),
        (
            texts(2).iter().map(|text| estimate_tokens(text) as u64).sum(),
            false
        ),
        "what was asked for, by estimate"
    );
    let refused = embedder.embed_documents(Asker::Service, texts(2)).await;
    let Err(EmbedError::Broken { answered, cause }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(answered.refused, [0, 1]);
    assert!(cause.to_string().contains("status 422"), "{cause}");
}

#[tokio::test]
async fn text_embeddings_inference_gets_no_more_texts_at_once_than_it_takes() {
    let vectors = |count: usize| Answer::Body(json!(vec![[0.0, 1.0, 0.0]; count]).to_string());
    let server = ScriptedServer::start([vectors(32), vectors(1)]).await;
    let embedder = embedder_with(&server, |options| {
        options.protocol = Protocol::Tei;
        options.batch_size = 64;
    });

    // The two requests are under way at once, and only their sizes tell which answer fits.
    let embedded = embedder.embed_documents(Asker::Service, texts(33)).await;

    let mut sizes: Vec<usize> = server
        .requests()
        .iter()
        .map(|request| request.body["inputs"].as_array().map_or(0, Vec::len))
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 32], "{embedded:?}");
}
