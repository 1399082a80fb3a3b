//! Who is at fault where a server refuses: a text, or how it is asked; and what that costs the texts beside.

use retrieval::embed::{Asker, EmbedError, Embedder};
use serde_json::{Value, json};

use crate::openai_embedder::{embedder, embedder_with, texts};
use crate::scripted_server::{Answer, ScriptedServer};

/// The texts of a request.
fn sent(server: &ScriptedServer, request: usize) -> Value {
    server.requests()[request].body["input"].clone()
}

#[tokio::test]
async fn where_a_harmless_text_is_refused_as_well_no_text_is_at_fault() {
    for (status, words) in [
        (400, "it does not accept the request"),
        (403, "it does not allow this"),
        (413, "it does not accept the request"),
        (422, "it does not accept the request"),
        (451, "it does not accept the request"),
    ] {
        let refused = || Answer::Status(status, "", r#"{"error": "unknown parameter"}"#);
        let server = ScriptedServer::start((0..4).map(|_| refused())).await;
        let embedder = embedder(&server);

        let told = embedder
            .embed_documents(Asker::Service, texts(4))
            .await
            .expect_err("all are refused");
        let asked = embedder
            .embed_query(Asker::Service, "How long?".to_owned())
            .await
            .expect_err("all are refused");

        let expected = format!(
            "{words} (status {status}), not even for one short word: check the key, the name of the model and the address"
        );
        assert_eq!(told.denial(), Some(expected.as_str()), "{told:?}");
        assert_eq!(asked.denial(), Some(expected.as_str()), "{asked:?}");
        assert!(matches!(told, EmbedError::Denied { .. }), "{told:?}");
        assert_eq!(
            [0, 1, 2, 3].map(|request| sent(&server, request)),
            [
                json!(["w", "ww", "www", "wwww"]),
                json!(["hello"]),
                json!(["How long?"]),
                json!(["hello"])
            ]
        );
    }
}

#[tokio::test]
async fn a_question_that_is_refused_while_others_are_answered_is_at_fault_itself() {
    // A filter before the server answers 403 to what it takes for an attack.
    let server = ScriptedServer::start([Answer::Status(403, "", "{}")]).await;

    let error = embedder(&server)
        .embed_query(Asker::Service, "How long?".to_owned())
        .await
        .expect_err("it is refused");

    assert_eq!((error.denial(), error.spent()), (None, (10, true)));
    let EmbedError::Broken { cause, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(*cause, EmbedError::Refused { .. }), "{cause:?}");
}

#[tokio::test]
async fn an_outage_leaves_open_who_is_at_fault() {
    let busy = || Answer::Status(503, "", "{}");
    let server = ScriptedServer::start([Answer::Status(400, "", "{}"), busy(), busy(), busy()]).await;

    let error = embedder(&server)
        .embed_documents(Asker::Service, texts(2))
        .await
        .expect_err("nobody knows");

    assert!(matches!(error, EmbedError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn vectors_of_another_length_deny_and_are_looked_for_with_one_word_from_then_on() {
    let server = ScriptedServer::start([]).await;
    let embedder = embedder_with(&server, |options| options.dimension = 4);

    let first = embedder
        .embed_documents(Asker::Service, texts(2))
        .await
        .expect_err("three values");
    let second = embedder
        .embed_documents(Asker::Service, texts(2))
        .await
        .expect_err("three values");

    let reason = "its vectors have 3 values and not 4: check the dimension and the name of the model";
    for (error, spent) in [(&first, 20), (&second, 10)] {
        assert_eq!(error.denial(), Some(reason), "{error:?}");
        assert_eq!((error.spent(), error.may_have_cost()), ((spent, true), false));
    }
    assert_eq!(
        [0, 1].map(|request| sent(&server, request)),
        [json!(["w", "ww"]), json!(["hello"])]
    );
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn whoever_was_denied_asks_for_one_word_before_many_texts_until_that_is_answered() {
    let server = ScriptedServer::start([Answer::Status(401, "", "{}"), Answer::Status(401, "", "{}")]).await;
    let embedder = embedder(&server);

    for _ in 0..2 {
        let denied = embedder.embed_documents(Asker::Service, texts(2)).await;
        assert!(denied.is_err_and(|error| error.denial().is_some()));
    }
    for tokens in [30, 20] {
        let embedded = embedder
            .embed_documents(Asker::Service, texts(2))
            .await
            .expect("vectors");
        assert_eq!((embedded.vectors.len(), embedded.tokens), (2, tokens));
    }

    let texts = json!(["w", "ww"]);
    let harmless = json!(["hello"]);
    assert_eq!(
        [0, 1, 2, 3, 4].map(|request| sent(&server, request)),
        [texts.clone(), harmless.clone(), harmless, texts.clone(), texts]
    );
}

#[tokio::test]
async fn what_was_answered_beside_a_failed_request_is_kept_for_the_next_call() {
    let server = ScriptedServer::start([Answer::Status(401, "", "{}")]).await;

    let error = embedder(&server)
        .embed_documents(Asker::Service, texts(12))
        .await
        .expect_err("one of three");

    let EmbedError::Broken { answered, cause } = error else {
        panic!("{error}");
    };
    assert!(cause.denial().is_some(), "{cause}");
    let missing = answered.vectors.iter().filter(|vector| vector.is_none()).count();
    assert_eq!((missing, answered.refused.len()), (4, 0), "no text is at fault");
    assert_eq!((answered.tokens, answered.reported), (80, true));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_text_that_is_refused_is_found_and_costs_the_others_nothing() {
    let server = ScriptedServer::start([]).await;
    server.refuse_texts_with("wwwwwww");

    let error = embedder_with(&server, |options| options.batch_size = 8)
        .embed_documents(
            Asker::Service,
            vec!["w".into(), "ww".into(), "wwwwwww".into(), "www".into()],
        )
        .await
        .expect_err("one is refused");

    let EmbedError::Broken { answered, cause } = error else {
        panic!("{error}");
    };
    assert_eq!(answered.refused, [2]);
    let has_vector: Vec<bool> = answered.vectors.iter().map(Option::is_some).collect();
    assert_eq!(has_vector, [true, true, false, true]);
    assert!(
        matches!(&*cause, EmbedError::Refused { reason } if reason == "it does not accept the request (status 400)"),
        "{cause}"
    );
    assert_eq!(
        server.requests().len(),
        6,
        "by halves, and once for a harmless text"
    );
}

#[tokio::test]
async fn where_every_text_is_refused_the_search_for_the_one_at_fault_ends() {
    let server = ScriptedServer::start([]).await;
    server.refuse_texts_with("w");

    let error = embedder_with(&server, |options| options.batch_size = 256)
        .embed_documents(Asker::Service, texts(256))
        .await
        .expect_err("all are refused");

    assert!(matches!(
        error,
        EmbedError::Broken { .. } | EmbedError::Refused { .. }
    ));
    assert!(server.requests().len() <= 34, "{}", server.requests().len());
}
