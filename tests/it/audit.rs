//! The audit log: every administrative change has one line, with who, from where, what, before and after; no secret
//! is in it, and the API cannot change it.

use frontdesk::db::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Reply, Tenant, TestApp};
use crate::harness::operations::{Ids, Kind, Need, operations};
use crate::harness::people::PASSWORD;
use crate::harness::stored::exclude_page;

/// Operations that are no administrative change: asking, searching, and what persons do with their own login.
const NO_CHANGES: &[&str] = &[
    "POST /api/auth/logout",
    "POST /api/chat/inline",
    "POST /api/chat/message",
    "POST /api/chatbots/{id}/search",
    "POST /api/chunk-preview",
    "PUT /api/auth/password",
];

/// Operations that need something outside the service; the tests beside their counterpart look at their lines.
const LOOKED_AT_ELSEWHERE: &[&str] = &[
    "DELETE /api/integrations/google",
    "POST /api/index/generations",
    "POST /api/index/generations/{id}/activate",
    "POST /api/index/generations/{id}/rollback",
];

/// The line that each of the other operations leaves. In this order they do not stand in each other's way.
const CHANGES: &[(&str, &str)] = &[
    ("POST /api/chatbots", "chatbot.create"),
    ("PATCH /api/chatbots/{id}", "chatbot.update"),
    ("POST /api/chatbots/{id}/documents", "document.upload"),
    ("POST /api/chatbots/{id}/sources", "source.create"),
    ("POST /api/chatbots/crawl", "source.create"),
    ("PATCH /api/sources/{id}", "source.update"),
    ("POST /api/sources/{id}/sync", "source.sync"),
    ("POST /api/sources/{id}/pause", "source.pause"),
    ("POST /api/sources/{id}/resume", "source.resume"),
    ("POST /api/sources/{id}/cancel", "source.cancel"),
    (
        "DELETE /api/sources/{id}/exclusions/{exclusion_id}",
        "source.include",
    ),
    ("DELETE /api/sources/{id}", "source.delete"),
    ("PUT /api/sources/{id}/documents/{external_id}", "document.push"),
    (
        "DELETE /api/sources/{id}/documents/{external_id}",
        "document.delete",
    ),
    ("POST /api/chatbots/{id}/evals", "eval.create"),
    ("PATCH /api/chatbots/{id}/evals/{eval_id}", "eval.update"),
    ("POST /api/chatbots/{id}/evals/{eval_id}/import", "eval.import"),
    ("POST /api/chatbots/{id}/evals/{eval_id}/runs", "eval.run"),
    ("DELETE /api/chatbots/{id}/evals/{eval_id}", "eval.delete"),
    ("POST /api/jobs/{id}/retry", "job.retry"),
    ("PATCH /api/documents/{id}", "document.update"),
    ("POST /api/documents/{id}/chunks", "chunk.add"),
    ("PATCH /api/documents/{id}/chunks/{chunk_id}", "chunk.update"),
    ("DELETE /api/documents/{id}/chunks/{chunk_id}", "chunk.restore"),
    ("DELETE /api/documents/{id}", "document.delete"),
    ("DELETE /api/conversations/{id}", "conversation.delete"),
    ("POST /api/keys", "api_key.create"),
    ("DELETE /api/keys/{id}", "api_key.revoke"),
    ("POST /api/members", "member.invite"),
    ("DELETE /api/invites/{id}", "member.withdraw_invite"),
    ("PATCH /api/members/{id}", "member.change_role"),
    ("DELETE /api/members/{id}", "member.remove"),
    ("PATCH /api/tenant", "tenant.update"),
    ("GET /api/usage/export", "usage.export"),
    ("DELETE /api/chatbots/{id}", "chatbot.delete"),
];

async fn log(tenant: &Tenant<'_>) -> Vec<Value> {
    tenant.get("/api/audit?limit=100").await.expect(200).json()["items"]
        .as_array()
        .expect("items")
        .clone()
}

/// One real row of every kind; the job has failed, so that it can be retried.
async fn populate(tenant: &Tenant<'_>) -> Ids {
    let desk = tenant.chatbot("Desk").await;
    let document = desk
        .publish(
            "returns.md",
            "# Returns\n\nGoods may be returned within 30 days.\n",
        )
        .await;
    let answer = desk
        .ask("Within how many days may goods be returned?")
        .await
        .expect(200)
        .json();
    let conversation = answer["conversation_id"]
        .as_str()
        .expect("a conversation")
        .to_owned();
    let key = tenant
        .post("/api/keys", json!({ "name": "second", "scopes": ["chat"] }))
        .await
        .expect(201)
        .id();
    let member = tenant.bring("staff@example.com", "editor").await.member_id;
    let (eval, eval_run) = desk.run_eval(&document).await;
    let mut write = tenant
        .service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    frontdesk::on!(write, c => sqlx::query("update job set state = 'failed', last_error = 'broken'").execute(c).await.map(drop)).expect("updated");
    write.commit().await.expect("committed");
    let job = tenant.get("/api/jobs").await.expect(200).json()["items"][0]["id"]
        .as_str()
        .expect("a job")
        .to_owned();
    let (source, run) = desk.aborted_source("https://shop.example/").await;
    let exclusion = exclude_page(tenant, &source, "/left-out").await;
    let chatbot = desk.id.clone();
    let chunk = desk.first_chunk(&document).await;
    Ids([
        chatbot,
        document,
        conversation,
        key,
        member,
        job,
        source,
        run,
        chunk,
        exclusion,
        tenant.open_invite("invited@example.com").await,
        eval,
        eval_run,
        tenant.generation().await,
    ])
}

#[tokio::test]
async fn every_administrative_operation_leaves_one_line_that_names_it() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let ids = populate(&acme).await;
    let me = acme.get("/api/me").await.expect(200).json();
    let operations = operations();
    for operation in operations
        .iter()
        .filter(|operation| operation.need != Need::Nothing && operation.method != "GET")
        .filter(|operation| !LOOKED_AT_ELSEWHERE.contains(&operation.name().as_str()))
    {
        let name = operation.name();
        assert!(
            NO_CHANGES.contains(&name.as_str()) || CHANGES.iter().any(|(known, _)| *known == name),
            "{name}: which line does it leave?"
        );
    }

    // The one kind of source that takes documents.
    let path = format!("/api/chatbots/{}/sources", ids.of(Kind::Chatbot));
    let push = acme.post(&path, json!({ "kind": "push" })).await.expect(202).id();
    let with_push = ids.with(Kind::Source, &push);

    for (name, action) in CHANGES {
        let operation = operations
            .iter()
            .find(|operation| operation.name() == *name)
            .unwrap_or_else(|| panic!("there is no {name} any more"));
        let before = log(&acme).await;
        let ids = if name.contains("{external_id}") {
            &with_push
        } else {
            &ids
        };
        let reply = operation.call(ids).send(&service, Some(&acme.key)).await;
        assert!(reply.status.is_success(), "{name}: {}", reply.text);

        let after = log(&acme).await;
        assert_eq!(after.len(), before.len() + 1, "{name}");
        let line = &after[0];
        assert_eq!(
            (line["action"].as_str(), &line["actor"]),
            (Some(*action), &me["actor"]),
            "{name}"
        );
        assert_eq!(line["address"], "127.0.0.1", "{name}");
        assert_eq!(
            line["request_id"].as_str(),
            reply.headers["x-request-id"].to_str().ok(),
            "{name}"
        );
        assert!(
            line["object"]["id"].as_str().is_some_and(|id| !id.is_empty()),
            "{name}: {line}"
        );
        assert!(
            !(line["before"].is_null() && line["after"].is_null()),
            "{name} tells nothing: {line}"
        );
    }
}

#[tokio::test]
async fn a_refused_change_leaves_no_line() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let viewer = acme.make_key(json!({ "name": "chat", "scopes": ["chat"] })).await;
    let before = log(&acme).await;

    let path = format!("/api/chatbots/{}", desk.id);
    service
        .send(Method::DELETE, &path, Some(&viewer), None)
        .await
        .expect(403);
    acme.patch(&path, json!({ "max_passages": 99 })).await.expect(422);
    acme.delete(&format!("/api/keys/{}", uuid::Uuid::now_v7()))
        .await
        .expect(404);
    acme.post(
        "/api/members",
        json!({ "email": "x@example.com", "role": "owner" }),
    )
    .await
    .expect(403);

    assert_eq!(log(&acme).await, before);
}

#[tokio::test]
async fn a_line_shows_what_was_before_and_what_is_after() {
    let service = TestApp::start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let bob = owner.bring("bob@example.com", "viewer").await;
    let desk = owner
        .post("/api/chatbots", json!({ "name": "Desk" }))
        .await
        .expect(201)
        .id();
    let newest = async || owner.get("/api/audit?limit=1").await.expect(200).json()["items"][0].clone();

    owner
        .send(
            Method::PATCH,
            &format!("/api/chatbots/{desk}"),
            Some(json!({ "name": "Counter", "temperature": 0.5 })),
        )
        .await
        .expect(200);
    let line = newest().await;
    assert_eq!(
        (&line["before"]["name"], &line["before"]["temperature"]),
        (&json!("Desk"), &Value::Null)
    );
    assert_eq!(
        (&line["after"]["name"], &line["after"]["temperature"]),
        (&json!("Counter"), &json!(0.5))
    );
    assert_eq!(line["object"], json!({ "kind": "chatbot", "id": desk }));
    assert_eq!(line["actor"], json!({ "kind": "member", "id": owner.member_id }));

    owner.change_role(&bob.member_id, "editor").await.expect(200);
    let line = newest().await;
    assert_eq!(
        (&line["before"], &line["after"]),
        (&json!({ "role": "viewer" }), &json!({ "role": "editor" }))
    );

    owner.remove(&bob.member_id).await.expect(204);
    let line = newest().await;
    assert_eq!(
        (&line["before"], &line["after"]),
        (
            &json!({ "email": "bob@example.com", "role": "editor" }),
            &Value::Null
        )
    );

    owner
        .send(
            Method::PATCH,
            "/api/tenant",
            Some(json!({ "monthly_token_limit": 5 })),
        )
        .await
        .expect(200);
    let line = newest().await;
    assert_eq!(
        (
            &line["before"]["monthly_token_limit"],
            &line["after"]["monthly_token_limit"]
        ),
        (&Value::Null, &json!(5))
    );
}

#[tokio::test]
async fn who_joined_and_what_the_operator_did_is_in_it_too() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let bob = acme.bring("bob@example.com", "viewer").await;
    let owner = service.sign_up("owner@example.com", "Engines").await;

    let lines = log(&acme).await;
    let actions: Vec<&str> = lines.iter().filter_map(|line| line["action"].as_str()).collect();
    assert_eq!(
        actions,
        ["member.join", "member.invite", "api_key.create", "tenant.create"]
    );
    assert_eq!(
        lines[0]["actor"],
        json!({ "kind": "member", "id": bob.member_id })
    );
    assert_eq!(
        (
            &lines[3]["actor"]["kind"],
            &lines[3]["address"],
            &lines[3]["request_id"]
        ),
        (&json!("operator"), &Value::Null, &Value::Null)
    );
    let signed_up = owner.get("/api/audit").await.expect(200).json();
    assert_eq!(signed_up["items"][0]["action"], "tenant.sign_up");
}

#[tokio::test]
async fn no_secret_is_in_the_log() {
    let service = TestApp::start().await;
    let owner = service.sign_up("owner@example.com", "Engines").await;
    let invite = owner.invite("bob@example.com", "viewer").await;
    let secret = owner
        .post("/api/keys", json!({ "name": "k", "scopes": ["chat"] }))
        .await
        .expect(201)
        .json()["secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    service.accept_invite(&invite, PASSWORD).await.expect(200);

    let text = owner.get("/api/audit").await.expect(200).text;

    for secret in [
        invite.as_str(),
        secret.as_str(),
        PASSWORD,
        &owner.refresh_token,
        &owner.access_token,
        "$argon2id$",
    ] {
        assert!(
            !text.contains(secret)
                && !text.contains(secret.trim_start_matches("fdi_").trim_start_matches("fdk_")),
            "a secret is in the log"
        );
    }
}

#[tokio::test]
async fn the_log_cannot_be_changed_over_http() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let line = log(&acme).await[0]["id"].as_str().expect("an id").to_owned();

    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let reply = service
            .send(method.clone(), "/api/audit", Some(&acme.key), Some(json!({})))
            .await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (405, "method_not_allowed"),
            "{method}"
        );
        let reply = service
            .send(
                method.clone(),
                &format!("/api/audit/{line}"),
                Some(&acme.key),
                Some(json!({})),
            )
            .await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (404, "no_such_route"),
            "{method}"
        );
    }
}

#[tokio::test]
async fn the_log_is_read_page_by_page_newest_first() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    for number in 0..5 {
        acme.chatbot(&format!("Desk {number}")).await;
    }
    let all: Vec<Value> = log(&acme).await.iter().map(|line| line["id"].clone()).collect();

    let mut walked = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: Reply = acme.get(&format!("/api/audit?limit=3{cursor}")).await.expect(200);
        let page = page.json();
        walked.extend(
            page["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|line| line["id"].clone()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }

    assert_eq!(walked, all);
    assert_eq!(walked.len(), 7);
}

#[tokio::test]
async fn the_command_lines_changes_name_the_operator() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let key = acme
        .post("/api/keys", json!({ "name": "k", "scopes": ["chat"] }))
        .await
        .expect(201)
        .id();

    frontdesk::tenancy::operator::revoke_key(
        &service.app.db,
        service.clock.as_ref(),
        key.parse().expect("an id"),
    )
    .await
    .expect("revoked");

    let line = log(&acme).await[0].clone();
    assert_eq!(
        (
            line["action"].as_str(),
            line["actor"]["kind"].as_str(),
            &line["object"]["id"]
        ),
        (Some("api_key.revoke"), Some("operator"), &json!(key))
    );
}
