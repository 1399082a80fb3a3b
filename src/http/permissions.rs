//! Holds `docs/permissions.md` against the code: every role, key scope and operation is in the table.

use std::fmt::Write as _;

use serde_json::Value;

use super::router;
use crate::tenancy::role::{KeyScope, Permission, Role};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/permissions.md");

/// The page as the code says it should be.
fn render() -> String {
    let mut page = String::from(
        "# Who may do what\n\n\
         Generated from `src/tenancy/role.rs` and the OpenAPI document; a test holds this page against them. After a change:\n\
         `cargo test --lib -- --ignored rewrite_the_permissions_page`.\n\n\
         Every operation needs one permission, which the OpenAPI document names as the scope of its `bearer` security.\n\
         Members hold permissions by their role, API keys by their scopes. Whoever lacks the permission gets 403\n\
         `permission_missing`; what lies in another tenant, or outside the one chatbot that a key is restricted to, is 404.\n\n\
         Nobody grants more than they hold: an admin makes no owner and changes none, and a key of scope `admin` counts as\n\
         an admin. The last owner of a tenant stays one. A chatbot's own monthly limits are part of its settings (`edit`); the\n\
         tenant's, which bound them all, need `admin`. Choosing what a source reads with the tenant's Google connection needs\n\
         `admin` too (403 `connection_needs_admin`), since that account sees more than the chatbot should. Logging out and\n\
         changing a password are for members who logged in here: others get 403, since they have no session and no password.\n\n\
         Whoever may read documents, and keys of scope `chat:groups`, may say which access groups a visitor has; others, such as\n\
         keys of scope `chat` that browsers see, get 403 `groups_not_allowed`. Such keys ask and nothing else: searching shows\n\
         passages word for word and how they were found, so it needs `search`, which only keys of servers hold.\n\n\
         Routes outside the document (`/docs`, `/api/openapi.json`, `/metrics`) need nothing and hold no tenant's data.\n",
    );
    page.push_str("\n## Roles\n\n");
    table(
        &mut page,
        "permission",
        &Role::ALL.map(Role::name),
        Permission::ALL.map(|permission| {
            (
                permission.name().to_owned(),
                Role::ALL.map(|role| role.allows(permission)),
            )
        }),
    );
    page.push_str("\n## Key scopes\n\n");
    table(
        &mut page,
        "permission",
        &KeyScope::ALL.map(KeyScope::name),
        Permission::ALL.map(|permission| {
            (
                permission.name().to_owned(),
                KeyScope::ALL.map(|scope| scope.allows(permission)),
            )
        }),
    );
    page.push_str("\n## Operations\n\n| operation | needs | roles | key scopes |\n|---|---|---|---|\n");
    for (operation, need) in operations() {
        let (needs, roles, scopes) = match need {
            Need::Nothing => ("nothing".to_owned(), "anyone".to_owned(), "anyone".to_owned()),
            Need::Credential => (
                "any credential".to_owned(),
                list(Role::ALL.map(Role::name)),
                list(KeyScope::ALL.map(KeyScope::name)),
            ),
            Need::Permission(permission) => (
                format!("`{}`", permission.name()),
                list(
                    Role::ALL
                        .into_iter()
                        .filter(|role| role.allows(permission))
                        .map(Role::name),
                ),
                list(
                    KeyScope::ALL
                        .into_iter()
                        .filter(|scope| scope.allows(permission))
                        .map(KeyScope::name),
                ),
            ),
        };
        writeln!(page, "| `{operation}` | {needs} | {roles} | {scopes} |").expect("a string takes all text");
    }
    page
}

fn table<const COLUMNS: usize>(
    page: &mut String,
    corner: &str,
    columns: &[&str; COLUMNS],
    rows: impl IntoIterator<Item = (String, [bool; COLUMNS])>,
) {
    writeln!(
        page,
        "| {corner} | {} |\n|---|{}",
        columns.join(" | "),
        "---|".repeat(COLUMNS)
    )
    .expect("a string takes all text");
    for (name, cells) in rows {
        let cells = cells.map(|allowed| if allowed { "yes" } else { "no" });
        writeln!(page, "| `{name}` | {} |", cells.join(" | ")).expect("a string takes all text");
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// What a caller must have.
enum Need {
    Nothing,
    Credential,
    Permission(Permission),
}

/// All operations of the OpenAPI document with what each needs, by path and method.
fn operations() -> Vec<(String, Need)> {
    let document = serde_json::to_value(router::openapi()).expect("the document is JSON");
    let paths = document["paths"].as_object().expect("the document has paths");
    let mut operations = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("a path has methods") {
            let name = format!("{} {path}", method.to_uppercase());
            let need = need(&name, &operation["security"]);
            operations.push((name, need));
        }
    }
    operations.sort_by(|(a, _), (b, _)| a.split(' ').rev().cmp(b.split(' ').rev()));
    operations
}

fn need(operation: &str, security: &Value) -> Need {
    let Some(requirements) = security.as_array() else {
        return Need::Nothing;
    };
    let [requirement] = requirements.as_slice() else {
        panic!("{operation} must have one security requirement")
    };
    let scopes = requirement["bearer"]
        .as_array()
        .unwrap_or_else(|| panic!("{operation} must take bearer tokens"));
    match scopes.as_slice() {
        [] => Need::Credential,
        [scope] => {
            let permission = Permission::ALL
                .into_iter()
                .find(|permission| Some(permission.name()) == scope.as_str());
            Need::Permission(
                permission.unwrap_or_else(|| panic!("{operation} names no permission of ours: {scope}")),
            )
        }
        _ => panic!("{operation} must need one permission"),
    }
}

#[test]
fn the_permissions_page_says_what_the_code_does() {
    let committed = std::fs::read_to_string(PAGE).expect("docs/permissions.md can be read");

    assert_eq!(
        committed,
        render(),
        "rewrite it: cargo test --lib -- --ignored rewrite_the_permissions_page"
    );
}

#[test]
#[ignore = "writes docs/permissions.md"]
fn rewrite_the_permissions_page() {
    std::fs::write(PAGE, render()).expect("docs/permissions.md can be written");
}
