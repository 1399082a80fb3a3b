//! PostgreSQL's second wall: a statement that forgets its tenant still sees and changes no other tenant's rows. SQLite
//! has no such wall; there these tests have nothing to hold.

use frontdesk::db::{Db, Scope};
use frontdesk::id::TenantId;
use frontdesk::on;
use sqlx::{AssertSqlSafe, Executor as _, PgPool};

use crate::harness::app::{Tenant, TestApp, engine};

/// Tables without a tenant's rows: only the operator sees accounts and schedules, and the migrations' own list, the
/// job clock and what tells one index or store of files from another hold nothing of anybody.
const SHARED: &[&str] = &[
    "_sqlx_migrations",
    "account",
    "embedding_space",
    "file_store",
    "index_generation",
    "job_clock",
    "schedule",
    "tenant",
];

fn pool(service: &TestApp) -> &PgPool {
    match &service.app.db {
        Db::Postgres(pool) => pool,
        Db::Sqlite { .. } => panic!("this run is on PostgreSQL"),
    }
}

/// All tables, and whether they have a `tenant_id`.
async fn tables(pool: &PgPool) -> Vec<(String, bool)> {
    let text = "select cast(t.table_name as text),
                       exists (select 1 from information_schema.columns c
                                where c.table_schema = 'public' and c.table_name = t.table_name and c.column_name = 'tenant_id')
                  from information_schema.tables t
                 where t.table_schema = 'public' and t.table_type = 'BASE TABLE'
                 order by 1";
    sqlx::query_as(text)
        .fetch_all(pool)
        .await
        .expect("the schema can be read")
}

async fn populate(tenant: &Tenant<'_>) {
    let desk = tenant.chatbot("Desk").await;
    desk.publish(
        "returns.md",
        "# Returns\n\nGoods may be returned within 30 days.\n",
    )
    .await;
    desk.ask("Within how many days may goods be returned?")
        .await
        .expect(200);
    let email = format!("staff@{}.example.com", tenant.id);
    tenant.bring(&email, "viewer").await;
}

/// How many rows of a table a statement without any condition sees, in all and of others than `tenant_id`.
async fn seen(service: &TestApp, scope: Scope, table: &str, tenant_id: TenantId) -> (i64, i64) {
    let mut conn = service.app.db.read(scope).await.expect("a connection");
    let text = format!("select count(*), count(*) filter (where tenant_id <> $1) from {table}");
    on!(conn, c => sqlx::query_as(AssertSqlSafe(text)).bind(tenant_id).fetch_one(c).await).expect("counted")
}

#[tokio::test]
async fn a_statement_that_forgets_its_tenant_sees_only_the_connections_own_rows() {
    if engine() != "postgres" {
        return;
    }
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    populate(&acme).await;
    let globex = service.tenant("globex").await;
    populate(&globex).await;

    let mut filled = 0;
    for (table, is_tenants) in tables(pool(&service)).await {
        if !is_tenants {
            assert!(
                SHARED.contains(&table.as_str()),
                "{table} has no tenant_id: give it one, or a reason here"
            );
            continue;
        }
        let (all, others) = seen(&service, acme.id.into(), &table, acme.id).await;
        assert_eq!(others, 0, "{table} shows another tenant's rows");
        let (operators, not_acmes) = seen(&service, Scope::Operator, &table, acme.id).await;
        assert!(
            operators >= all + not_acmes.min(1),
            "{table} hides rows from the operator"
        );
        filled += usize::from(all > 0 && not_acmes > 0);
    }
    assert!(filled >= 12, "only {filled} tables held rows of both tenants");

    let mut conn = service.app.db.read(acme.id).await.expect("a connection");
    let tenants: Vec<String> =
        on!(conn, c => sqlx::query_scalar("select name from tenant").fetch_all(c).await).expect("tenants");
    let accounts: i64 = on!(conn, c => sqlx::query_scalar("select count(*) from account").fetch_one(c).await)
        .expect("accounts");
    assert_eq!((tenants, accounts), (vec!["acme".to_owned()], 0));
}

#[tokio::test]
async fn every_table_of_tenants_has_a_forced_wall() {
    if engine() != "postgres" {
        return;
    }
    let service = TestApp::start().await;
    for (table, is_tenants) in tables(pool(&service)).await {
        if !is_tenants && table != "tenant" && table != "account" {
            continue;
        }
        let (enabled, forced, policies): (bool, bool, i64) = sqlx::query_as(
            "select c.relrowsecurity, c.relforcerowsecurity, (select count(*) from pg_policy p where p.polrelid = c.oid)
               from pg_class c
              where c.oid = to_regclass($1)",
        )
        .bind(&table)
        .fetch_one(pool(&service))
        .await
        .expect("the table's entry");

        assert_eq!((enabled, forced, policies), (true, true, 1), "{table}");
    }
}

#[tokio::test]
async fn a_statement_that_forgets_its_tenant_changes_and_deletes_only_the_connections_own_rows() {
    if engine() != "postgres" {
        return;
    }
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let globex = service.tenant("globex").await;
    let desk = globex.chatbot("Globex's desk").await;
    acme.chatbot("Acme's desk").await;

    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    let renamed: Vec<String> =
        on!(write, c => sqlx::query_scalar("update chatbot set name = 'Stolen' returning name").fetch_all(c).await).expect("updated");
    assert_eq!(renamed.len(), 1);
    on!(write, c => sqlx::query("delete from api_key").execute(c).await.map(drop)).expect("deleted");
    on!(write, c => sqlx::query("delete from tenant").execute(c).await.map(drop)).expect("deleted");
    write.commit().await.expect("committed");

    let kept = globex
        .get(&format!("/api/chatbots/{}", desk.id))
        .await
        .expect(200)
        .json();
    assert_eq!(kept["name"], "Globex's desk");
}

#[tokio::test]
async fn a_row_cannot_be_written_for_or_moved_to_another_tenant() {
    if engine() != "postgres" {
        return;
    }
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let globex = service.tenant("globex").await;
    acme.chatbot("Desk").await;

    for text in [
        "insert into audit_event (id, tenant_id, actor_kind, actor_id, action, object_kind, object_id, created_at)
         values (gen_random_uuid(), $1, 'x', 'x', 'x', 'x', 'x', now())",
        "update chatbot set tenant_id = $1",
    ] {
        let mut write = service.app.db.write(acme.id).await.expect("a transaction");
        let refused: Result<(), sqlx::Error> = on!(write, c => sqlx::query(text).bind(globex.id).execute(c).await.map(drop));
        let error = refused.expect_err("the wall stands");
        assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{error}");
    }
}

#[tokio::test]
async fn a_connection_without_its_tenant_sees_nothing_also_after_errors() {
    if engine() != "postgres" {
        return;
    }
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    populate(&acme).await;
    let all_see_nothing = async || {
        // More looks than the pool has connections, some of which were used for a tenant or the operator before.
        let mut held = Vec::new();
        for _ in 0..pool(&service).options().get_max_connections() {
            let mut connection = pool(&service).acquire().await.expect("a connection");
            for table in [
                "tenant",
                "account",
                "chatbot",
                "message",
                "api_key",
                "audit_event",
            ] {
                let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}")))
                    .fetch_one(&mut *connection)
                    .await
                    .expect("counted");
                assert_eq!(count, 0, "{table} shows rows to nobody in particular");
            }
            held.push(connection);
        }
    };
    all_see_nothing().await;

    for scope in [Scope::Tenant(acme.id), Scope::Operator] {
        let mut conn = service.app.db.read(scope).await.expect("a connection");
        let broken: Result<i64, sqlx::Error> =
            on!(conn, c => sqlx::query_scalar("select 1 / 0").fetch_one(c).await.map(|n: i32| n.into()));
        broken.expect_err("nothing is divided by zero");
        drop(conn);
        all_see_nothing().await;

        let mut write = service.app.db.write(scope).await.expect("a transaction");
        on!(write, c => sqlx::query("update tenant set name = name").execute(c).await.map(drop))
            .expect("updated");
        write.commit().await.expect("committed");
        all_see_nothing().await;
    }
}

#[tokio::test]
async fn a_connection_for_reading_cannot_write() {
    if engine() != "postgres" {
        return;
    }
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let mut conn = service.app.db.read(acme.id).await.expect("a connection");

    let refused: Result<(), sqlx::Error> =
        on!(conn, c => c.execute("update tenant set name = 'x'").await.map(drop));

    refused.expect_err("a reader does not write");
}
