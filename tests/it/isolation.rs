//! Another tenant's id answers exactly like an id that never was: for every operation of the OpenAPI document, in
//! paths, queries and bodies. The same holds for a key that is restricted to another chatbot.

use frontdesk::on;
use frontdesk::tenancy::role::{KeyScope, Permission};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::app::{Reply, Tenant, TestApp, TestOptions};
use crate::harness::operations::{Ids, Kind, Need, Operation, operations};
use crate::harness::stored::exclude_page;

const RETURNS: &str = "# Returns\n\nGoods may be returned within 30 days of delivery.\n";

/// Lists and details from which a tenant would notice any change to its data.
const LISTS: &[&str] = &[
    "/api/tenant",
    "/api/chatbots",
    "/api/conversations",
    "/api/keys",
    "/api/members",
    "/api/invites",
    "/api/jobs",
    "/api/audit",
    "/api/usage",
    "/api/usage/budget",
    "/api/integrations/google",
    "/api/index/generations",
];

async fn start() -> TestApp {
    TestOptions::default()
        .set("limits.login_attempts", 1000)
        .set("google.client_id", "an application")
        .set("google.client_secret", "its secret")
        .start()
        .await
}

/// One real row of every kind.
async fn populate(tenant: &Tenant<'_>, name: &str) -> Ids {
    let desk = tenant.chatbot(&format!("Desk of {name}")).await;
    let document = desk.publish("returns.md", RETURNS).await;
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
    let member = tenant
        .bring(&format!("staff@{name}.example"), "admin")
        .await
        .member_id;
    let invite = tenant.open_invite(&format!("invited@{name}.example")).await;
    let jobs = tenant.get("/api/jobs").await.expect(200).json();
    let job = jobs["items"][0]["id"]
        .as_str()
        .expect("the upload queued a job")
        .to_owned();
    let (eval, eval_run) = desk.run_eval(&document).await;
    let (source, run) = desk.aborted_source(&format!("https://{name}.example/")).await;
    let exclusion = exclude_page(tenant, &source, "/left-out").await;
    let chunk = desk.first_chunk(&document).await;
    let chatbot = desk.id.clone();
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
        invite,
        eval,
        eval_run,
        tenant.generation().await,
    ])
}

/// Rows of further kinds: a source of a Drive that is read with the tenant's connected account, and a pushed document.
async fn populate_more(tenant: &Tenant<'_>, ids: &Ids) -> Vec<Ids> {
    connect_google(tenant).await;
    let sources = format!("/api/chatbots/{}/sources", ids.of(Kind::Chatbot));
    let drive = json!({ "kind": "drive", "drive": { "folder_id": "root" } });
    let drive = tenant.post(&sources, drive).await.expect(202).id();
    tenant
        .post(&format!("/api/sources/{drive}/cancel"), json!({}))
        .await
        .expect(200);
    let push = tenant
        .post(&sources, json!({ "kind": "push", "name": "Pushed" }))
        .await
        .expect(202)
        .id();
    let path = format!("/api/sources/{push}/documents/returns%2Fdomestic");
    let body = Some(json!({ "text": "Goods may be returned." }));
    let pushed = tenant
        .service
        .send(reqwest::Method::PUT, &path, Some(&tenant.key), body)
        .await
        .expect(201)
        .id();
    tenant.service.drain_jobs().await;
    vec![
        ids.with(Kind::Source, &drive),
        ids.with(Kind::Source, &push).with(Kind::Document, &pushed),
    ]
}

/// As if the tenant had connected a Google account that nobody asks for anything.
async fn connect_google(tenant: &Tenant<'_>) {
    let now = tenant.service.app.clock.now();
    let account = format!("{}@google.example", tenant.id);
    let mut write = tenant
        .service
        .app
        .db
        .write(tenant.id)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query(
        "insert into connection (id, tenant_id, provider, account, sealed, state, created_at, updated_at)
         values ($1, $2, 'google', $3, '', 'connected', $4, $4)",
    ).bind(Uuid::now_v7()).bind(tenant.id).bind(account).bind(now).execute(c).await.map(drop))
    .expect("a row");
    write.commit().await.expect("committed");
}

/// All that the tenant's admins can see of it, but for when keys were last used.
async fn everything_of(tenant: &Tenant<'_>, ids: &Ids) -> Vec<(String, String)> {
    let mut paths: Vec<String> = LISTS.iter().map(|path| (*path).to_owned()).collect();
    paths.push(format!("/api/chatbots/{}/documents", ids.of(Kind::Chatbot)));
    paths.push(format!("/api/documents/{}", ids.of(Kind::Document)));
    paths.push(format!("/api/documents/{}/file", ids.of(Kind::Document)));
    paths.push(format!("/api/conversations/{}", ids.of(Kind::Conversation)));
    paths.push(format!("/api/chatbots/{}/sources", ids.of(Kind::Chatbot)));
    paths.push(format!("/api/sources/{}", ids.of(Kind::Source)));
    paths.push(format!("/api/sources/{}/runs", ids.of(Kind::Source)));
    paths.push(format!("/api/sources/{}/documents", ids.of(Kind::Source)));
    paths.push(format!("/api/sources/{}/exclusions", ids.of(Kind::Source)));
    paths.push(format!(
        "/api/chatbots/{}/evals/{}",
        ids.of(Kind::Chatbot),
        ids.of(Kind::Eval)
    ));
    let mut seen = Vec::new();
    for path in paths {
        let reply = tenant.get(&path).await.expect(200);
        let mut body = reply.json();
        for item in body["items"].as_array_mut().into_iter().flatten() {
            item.as_object_mut().map(|item| item.remove("last_used_at"));
        }
        seen.push((
            path,
            if body.is_null() {
                reply.text
            } else {
                body.to_string()
            },
        ));
    }
    seen
}

/// What a caller can tell two answers apart by.
fn telling(reply: &Reply) -> (u16, Value, Option<String>) {
    let mut body = reply.json();
    body.as_object_mut().map(|body| body.remove("request_id"));
    let content_type = reply
        .headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    (reply.status.as_u16(), body, content_type)
}

/// Tries `operation` with each id of `foreign`, the rest being the caller's own; returns how many places it tried.
async fn try_foreign_ids(
    service: &TestApp,
    key: &str,
    operation: &Operation,
    own: &Ids,
    foreign: &Ids,
) -> usize {
    let mut tried = 0;
    for kind in Kind::ALL {
        if !operation.call(own).mentions(own.of(kind)) {
            continue;
        }
        tried += 1;
        let never = Ids::random();
        let absent = operation
            .call(&own.with(kind, never.of(kind)))
            .send(service, Some(key))
            .await;
        let others = operation
            .call(&own.with(kind, foreign.of(kind)))
            .send(service, Some(key))
            .await;

        let place = format!("{} with a foreign {kind:?}", operation.name());
        assert_eq!(telling(&others), telling(&absent), "{place}");
        for kind in Kind::ALL {
            assert!(
                !others.text.contains(foreign.of(kind)),
                "{place} shows a foreign {kind:?}: {}",
                others.text
            );
        }
        // A filter narrows a search to nothing; everything else that is named must be there.
        let is_of_filter = matches!(kind, Kind::Source | Kind::Document);
        let narrows = is_of_filter && operation.path.ends_with("/search");
        assert_eq!(
            others.status.as_u16(),
            if narrows { 200 } else { 404 },
            "{place}: {}",
            others.text
        );
    }
    tried
}

#[tokio::test]
async fn another_tenants_id_answers_like_one_that_never_was_in_every_operation() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let of_acme = populate(&acme, "acme").await;
    let globex = service.tenant("globex").await;
    let of_globex = populate(&globex, "globex").await;
    let before = everything_of(&acme, &of_acme).await;

    let mut tried = 0;
    for operation in operations()
        .iter()
        .filter(|operation| operation.need != Need::Nothing)
    {
        tried += try_foreign_ids(&service, &globex.key, operation, &of_globex, &of_acme).await;
    }

    assert!(tried >= 20, "only {tried} places for ids were found");
    for (now, then) in everything_of(&acme, &of_acme).await.into_iter().zip(before) {
        assert_eq!(now, then, "a stranger changed something");
    }
}

#[tokio::test]
async fn sources_of_every_kind_what_is_pushed_and_a_connected_account_are_their_tenants_own() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let of_acme = populate(&acme, "acme").await;
    let more_of_acme = populate_more(&acme, &of_acme).await;
    let globex = service.tenant("globex").await;
    let of_globex = populate(&globex, "globex").await;
    let more_of_globex = populate_more(&globex, &of_globex).await;
    let mut before = Vec::new();
    for ids in &more_of_acme {
        before.extend(everything_of(&acme, ids).await);
    }

    for (own, foreign) in more_of_globex.iter().zip(&more_of_acme) {
        let about_sources = |operation: &&Operation| {
            operation.path.contains("/sources/") || operation.path.contains("/documents/")
        };
        for operation in operations().iter().filter(about_sources) {
            let mixed = own
                .with(Kind::Source, foreign.of(Kind::Source))
                .with(Kind::Document, foreign.of(Kind::Document));
            let call = operation.call(&mixed);
            let reply = call.send(&service, Some(&globex.key)).await;
            assert_eq!(reply.status.as_u16(), 404, "{}: {}", operation.name(), reply.text);
        }
    }
    let shown = globex.get("/api/integrations/google").await.expect(200).text;
    assert!(!shown.contains(&acme.id.to_string()), "{shown}");
    globex.delete("/api/integrations/google").await.expect(200);

    let mut after = Vec::new();
    for ids in &more_of_acme {
        after.extend(everything_of(&acme, ids).await);
    }
    for (now, then) in after.into_iter().zip(before) {
        assert_eq!(now, then, "a stranger changed something");
    }
}

#[tokio::test]
async fn no_list_shows_anything_of_another_tenant() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let of_acme = populate(&acme, "acme").await;
    let globex = service.tenant("globex").await;
    let of_globex = populate(&globex, "globex").await;

    let mut shown = String::new();
    for operation in operations()
        .iter()
        .filter(|operation| operation.method == "GET" && operation.need != Need::Nothing)
    {
        let reply = operation
            .call(&of_globex)
            .send(&service, Some(&globex.key))
            .await
            .expect(200);

        for kind in Kind::ALL {
            assert!(
                !reply.text.contains(of_acme.of(kind)),
                "{} shows a foreign {kind:?}",
                operation.name()
            );
        }
        assert!(
            !reply.text.contains(&acme.id.to_string()) && !reply.text.contains("acme"),
            "{} names the other tenant",
            operation.name()
        );
        shown += &reply.text;
    }

    for kind in Kind::ALL {
        assert!(
            shown.contains(of_globex.of(kind)),
            "no list shows one's own {kind:?}"
        );
    }
}

#[tokio::test]
async fn a_key_restricted_to_one_chatbot_sees_the_tenants_other_chatbots_like_ones_that_never_were() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let sales = populate(&acme, "sales").await;
    let support = populate(&acme, "support").await;
    let scopes = [KeyScope::Ingest, KeyScope::Chat];
    let body = json!({ "name": "sales only", "scopes": scopes, "chatbot_id": sales.of(Kind::Chatbot) });
    let key = acme.make_key(body).await;
    let before = everything_of(&acme, &support).await;

    let mut tried = 0;
    for operation in operations() {
        let Need::Permission(permission) = operation.need else {
            continue;
        };
        if !scopes.iter().any(|scope| scope.allows(permission)) {
            continue;
        }
        tried += try_foreign_ids(&service, &key, &operation, &sales, &support).await;
        if operation.method == "GET" {
            let reply = operation
                .call(&sales)
                .send(&service, Some(&key))
                .await
                .expect(200);
            assert!(
                !reply.text.contains(support.of(Kind::Chatbot)) && !reply.text.contains("Desk of support"),
                "{}",
                operation.name()
            );
        }
    }

    assert!(tried >= 10, "only {tried} places for ids were found");
    for (now, then) in everything_of(&acme, &support).await.into_iter().zip(before) {
        if now.0 == "/api/usage" {
            // The ledger is the tenant's: the key's own searches are in it.
            continue;
        }
        assert_eq!(now, then, "a restricted key changed something of another chatbot");
    }
}

#[tokio::test]
async fn a_key_of_one_chatbot_cannot_hold_a_scope_over_the_whole_tenant() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    for scope in KeyScope::ALL {
        let wide = scope.allows(Permission::Admin) || scope.allows(Permission::UsageRead);
        let body = json!({ "name": "narrow", "scopes": [scope], "chatbot_id": desk.id });
        let reply = acme.post("/api/keys", body).await;

        assert_eq!(
            reply.status.as_u16(),
            if wide { 422 } else { 201 },
            "{scope:?}: {}",
            reply.text
        );
    }
}

#[tokio::test]
async fn a_member_of_two_tenants_reaches_only_the_one_the_session_is_in() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let of_acme = populate(&acme, "acme").await;
    let globex = service.tenant("globex").await;
    populate(&globex, "globex").await;
    let in_globex = globex.bring("both@example.com", "admin").await;
    let in_acme = acme.bring("both@example.com", "admin").await;

    let path = format!("/api/chatbots/{}", of_acme.of(Kind::Chatbot));

    in_acme.get(&path).await.expect(200);
    assert_eq!(in_globex.get(&path).await.expect(404).code(), "not_found");
}
