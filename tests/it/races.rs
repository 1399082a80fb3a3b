//! Two who change the same thing at once: nobody's change is lost, and no old right survives. PostgreSQL has many writers;
//! on SQLite the same holds because there is one.

use std::time::Duration;

use frontdesk::db::Scope;
use frontdesk::on;
use frontdesk::tenancy::{TenantState, operator};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Reply, Tenant, TestApp, TestOptions};
use crate::harness::people::PASSWORD;

/// Long enough for a request to reach the row that it then waits for.
const UNDER_WAY: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn renaming_a_tenant_does_not_undo_its_suspension() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;

    for round in 0..8 {
        let name = format!("acme {round}");
        let (_, suspended) = tokio::join!(
            futures::future::join_all((0..6).map(|_| acme.patch("/api/tenant", json!({ "name": name })))),
            operator::set_state(
                &service.app.db,
                service.clock.as_ref(),
                acme.id,
                TenantState::Suspended
            ),
        );

        assert!(suspended.expect("suspended"));
        assert_eq!(acme.get("/api/me").await.status, 401, "round {round}");
        operator::set_state(
            &service.app.db,
            service.clock.as_ref(),
            acme.id,
            TenantState::Active,
        )
        .await
        .expect("resumed");
    }
}

#[tokio::test]
async fn a_change_of_the_tenant_waits_for_the_one_before_it_and_keeps_it() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    on!(write, c => sqlx::query("update tenant set state = 'suspended', monthly_cost_limit_micro_usd = 7 where id = $1")
        .bind(acme.id).execute(c).await.map(drop))
    .expect("written");
    let renaming = acme.patch("/api/tenant", json!({ "name": "Acme Ltd" }));

    let (reply, committed) = tokio::join!(renaming, async {
        tokio::time::sleep(UNDER_WAY).await;
        write.commit().await
    });

    committed.expect("committed");
    assert_eq!(reply.expect(200).json()["monthly_cost_limit_micro_usd"], 7);
    assert_eq!(acme.get("/api/me").await.status, 401, "it is suspended");
}

#[tokio::test]
async fn a_login_with_the_old_password_that_runs_while_it_is_changed_opens_nothing() {
    let service = TestApp::start().await;
    let ada = service.sign_up("ada@example.com", "Engines").await;
    service.sign_up("bob@example.com", "Ladders").await;
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    // What changing the password writes; the hash is of another one.
    on!(write, c => sqlx::query(
        "update account
            set password_hash = (select password_hash from account where email = 'bob@example.com') || ' '
          where email = 'ada@example.com'",
    ).execute(c).await.map(drop))
    .expect("written");

    let (login, committed) = tokio::join!(service.log_in(&ada.email, PASSWORD), async {
        tokio::time::sleep(UNDER_WAY).await;
        write.commit().await
    });

    committed.expect("committed");
    assert_eq!(
        (login.status.as_u16(), login.code().as_str()),
        (401, "login_failed")
    );
}

async fn upload_while_it_goes(desk: &Chatbot<'_, '_>, text: String) -> Reply {
    desk.upload(&[("a.txt", text.as_bytes())]).await
}

async fn add(tenant: &Tenant<'_>, path: String, body: Value) -> Reply {
    tenant.post(&path, body).await
}

#[tokio::test]
async fn a_chatbot_that_is_deleted_while_it_is_used_is_gone_and_nobody_is_told_of_a_failure() {
    let service = TestOptions::default()
        .set("database.max_connections", 16)
        .start()
        .await;
    let acme = service.tenant("acme").await;

    for round in 0..12 {
        let desk = acme.chatbot("Desk").await;
        let id = desk.id.as_str();
        let path = format!("/api/chatbots/{id}");
        let sources = format!("{path}/sources");
        let key = json!({ "name": "k", "scopes": ["chat"], "chatbot_id": id });
        let push = json!({ "kind": "push", "name": "p" });

        let (a, b, c, d, e, f, deleted) = tokio::join!(
            upload_while_it_goes(&desk, format!("Words of round {round}.")),
            upload_while_it_goes(&desk, format!("Other words of round {round}.")),
            add(&acme, "/api/keys".to_owned(), key.clone()),
            add(&acme, "/api/keys".to_owned(), key),
            add(&acme, sources.clone(), push.clone()),
            add(&acme, sources, push),
            acme.delete(&path),
        );

        assert_eq!(deleted.status, 204, "round {round}: {}", deleted.text);
        for reply in [a, b, c, d, e, f] {
            assert!(
                reply.status.is_success() || reply.status == 404,
                "round {round}: {} {}",
                reply.status,
                reply.text
            );
        }
        assert_eq!(
            service
                .send(Method::GET, &path, Some(&acme.key), None)
                .await
                .status,
            404
        );
    }
    service.drain_jobs().await;
}
