//! Who may do what: every operation of the OpenAPI document, tried by every role and every key scope.

use frontdesk::tenancy::role::{KeyScope, Permission, Role};
use serde_json::json;

use crate::harness::app::{TestApp, TestOptions};
use crate::harness::operations::{Ids, Need, Operation, operations};

/// The operations that take callers without a credential. A new one has to be put here on purpose.
const OPEN: &[&str] = &[
    "GET /api/integrations/google/callback",
    "GET /health",
    "GET /ready",
    "POST /api/auth/accept-invite",
    "POST /api/auth/login",
    "POST /api/auth/refresh",
    "POST /api/auth/signup",
];

/// The operations that every credential may call, whatever it holds.
const FOR_EVERYONE: &[&str] = &["GET /api/me", "POST /api/auth/logout", "PUT /api/auth/password"];

/// Refusals of the two operations that only make sense for someone who logged in with a password.
const NOT_LOGGED_IN_HERE: &[&str] = &["no_session", "no_password", "wrong_password"];

/// Operations in an order in which none takes away what the next one needs: logging out comes last.
fn in_order() -> Vec<Operation> {
    let mut operations = operations();
    operations.sort_by_key(|operation| {
        (
            operation.path.starts_with("/api/auth/"),
            operation.path == "/api/auth/logout",
        )
    });
    operations
}

/// Tries all operations with one credential; `allows` is what the table says.
async fn try_all(service: &TestApp, credential: &str, who: &str, allows: impl Fn(Permission) -> bool) {
    for operation in in_order() {
        let place = format!("{} by {who}", operation.name());
        let reply = operation
            .call(&Ids::random())
            .send(service, Some(credential))
            .await;
        match operation.need {
            Need::Nothing => continue,
            Need::Permission(permission) if !allows(permission) => {
                assert_eq!(
                    (reply.status.as_u16(), reply.code().as_str()),
                    (403, "permission_missing"),
                    "{place}: {}",
                    reply.text
                );
            }
            Need::Permission(_) => {
                assert!(
                    ![401, 403, 429].contains(&reply.status.as_u16()) && !reply.status.is_server_error(),
                    "{place}: {}",
                    reply.text
                );
            }
            Need::Credential => {
                let about_passwords =
                    reply.status == 403 && NOT_LOGGED_IN_HERE.contains(&reply.code().as_str());
                assert!(
                    reply.status.is_success() || about_passwords,
                    "{place}: {}",
                    reply.text
                );
            }
        }
    }
}

#[tokio::test]
async fn every_role_may_do_what_the_table_says_and_nothing_else() {
    let service = TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await;
    let owner = service.sign_up("owner@example.com", "acme").await;
    for role in Role::ALL {
        let person = owner
            .bring(&format!("{}@staff.example.com", role.name()), role.name())
            .await;

        try_all(&service, &person.access_token, role.name(), |permission| {
            role.allows(permission)
        })
        .await;
    }
}

#[tokio::test]
async fn every_key_scope_may_do_what_the_table_says_and_nothing_else() {
    let service = TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    for scope in KeyScope::ALL {
        let key = acme
            .make_key(json!({ "name": scope.name(), "scopes": [scope] }))
            .await;

        try_all(&service, &key, scope.name(), |permission| {
            scope.allows(permission)
        })
        .await;
    }
}

#[tokio::test]
async fn a_key_of_several_scopes_holds_what_any_of_them_allows() {
    let service = TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let scopes = [KeyScope::Chat, KeyScope::UsageRead];
    let key = acme.make_key(json!({ "name": "two", "scopes": scopes })).await;

    try_all(&service, &key, "chat and usage:read", |permission| {
        scopes.iter().any(|scope| scope.allows(permission))
    })
    .await;
}

#[tokio::test]
async fn without_a_credential_only_a_closed_list_of_operations_answers() {
    let service = TestOptions::default()
        .set("limits.login_attempts", 1000)
        .start()
        .await;
    let mut open = Vec::new();
    let mut for_everyone = Vec::new();
    for operation in operations() {
        let reply = operation.call(&Ids::random()).send(&service, None).await;

        match operation.need {
            Need::Nothing => {
                assert_ne!(reply.code(), "credential_missing", "{}", operation.name());
                open.push(operation.name());
                continue;
            }
            Need::Credential => for_everyone.push(operation.name()),
            Need::Permission(_) => {}
        }
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (401, "credential_missing"),
            "{}",
            operation.name()
        );
        assert_eq!(
            reply.headers["www-authenticate"],
            "Bearer",
            "{}",
            operation.name()
        );
    }
    open.sort();
    for_everyone.sort();
    assert_eq!(open, OPEN);
    assert_eq!(for_everyone, FOR_EVERYONE);
}

#[tokio::test]
async fn an_unknown_role_in_the_database_opens_nothing() {
    let service = TestApp::start().await;
    let owner = service.sign_up("owner@example.com", "acme").await;
    let mut write = service
        .app
        .db
        .write(frontdesk::db::Scope::Operator)
        .await
        .expect("a transaction");
    frontdesk::on!(write, c => sqlx::query("update member set role = 'emperor'").execute(c).await.map(drop))
        .expect("updated");
    write.commit().await.expect("committed");

    let reply = owner.get("/api/tenant").await;

    assert!(!reply.status.is_success(), "{}", reply.text);
}
