//! Tables that nobody is to read any more, and those that somebody dropped.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use super::schema::{Collection, MAKING_LOCK};
use super::{Inner, failure};
use crate::analysis;
use crate::index::IndexError;

/// How long a table that is in use is waited for; later there is another try.
const LOCK_LIMIT: &str = "set local lock_timeout = '2s'";

/// Drops the tables of the same model that are of former rules of words, or keep vectors at the other precision, once those that
/// replace them are `at_least` so old: processes of the release before, or of the former configuration, may ask them until then. And
/// those of makings that were forgotten. How many makings went.
pub(super) async fn remove_former(inner: &Inner, at_least: Duration) -> Result<usize, IndexError> {
    let collection = &inner.collection;
    let mut connection = inner.movers.pool().acquire().await.map_err(failure)?;
    let before_rules = |name: &str| format!("{name}, analysis ");
    let own = before_rules(&collection.layout.name);
    let other = collection.layout.other_name.as_deref().map(before_rules);
    let former: Vec<(i32, String)> = sqlx::query_as(
        "select former.number, former.name
           from frontdesk_index.collection as former, frontdesk_index.collection as present
          where (starts_with(former.name, $1) or starts_with(former.name, $2))
            and present.number = $3
            and present.made_at <= now() - make_interval(secs => $4)",
    )
    .bind(&own)
    .bind(other.as_deref())
    .bind(collection.number)
    .bind(at_least.as_secs_f64())
    .fetch_all(&mut *connection)
    .await
    .map_err(failure)?;
    let is_former = |name: &str| {
        let rules_after = |beginning: &str| name.strip_prefix(beginning)?.parse::<u32>().ok();
        let of_other = other.as_deref().and_then(rules_after);
        rules_after(&own).is_some_and(|rules| rules < analysis::ANALYSIS)
            || of_other.is_some_and(|rules| rules <= analysis::ANALYSIS)
    };
    let former = former.into_iter().filter(|(_, name)| is_former(name));
    let forgotten: Vec<i32> = sqlx::query_scalar(
        "select distinct substring(relname from '^c([0-9]+)_')::integer as number
           from pg_class
          where relnamespace = 'frontdesk_index'::regnamespace
            and relkind = 'r'
            and relname ~ '^c[0-9]+_'
            and substring(relname from '^c([0-9]+)_')::integer not in
                (select number from frontdesk_index.collection)",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(failure)?;
    let forgotten = forgotten
        .into_iter()
        .map(|number| (number, "forgotten".to_owned()));
    let mut removed = 0;
    for (number, name) in former.chain(forgotten) {
        match drop_collection(&mut connection, number).await {
            Ok(true) => {
                removed += 1;
                tracing::info!(number, name, "tables that nobody is to read any more are dropped");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(number, name, error = ?error, "tables that nobody is to read any more cannot be dropped: in an hour there is another try");
            }
        }
    }
    Ok(removed)
}

/// False: somebody makes tables at this moment.
async fn drop_collection(connection: &mut PgConnection, number: i32) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let is_alone: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock($1)")
        .bind(MAKING_LOCK)
        .fetch_one(&mut *transaction)
        .await?;
    if !is_alone {
        return Ok(false);
    }
    transaction.execute(LOCK_LIMIT).await?;
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class
          where relnamespace = 'frontdesk_index'::regnamespace and relkind = 'r' and starts_with(relname, $1)",
    )
    .bind(format!("c{number}_"))
    .fetch_all(&mut *transaction)
    .await?;
    for table in tables {
        // With the view over it, where it is a tenant's own.
        let drop = format!("drop table frontdesk_index.{table} cascade");
        transaction.execute(AssertSqlSafe(drop)).await?;
    }
    sqlx::query("delete from frontdesk_index.collection where number = $1")
        .bind(number)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Forgets a collection of which somebody dropped a table: it is made anew, as another generation that is to be filled. What is left
/// of it goes with [`remove_former`].
pub(super) async fn forget_without_tables(
    connection: &mut PgConnection,
    name: &str,
) -> Result<(), IndexError> {
    sqlx::query(
        "delete from frontdesk_index.collection
          where name = $1
            and exists (select from unnest(array['_point', '_term', '_tenant']) as part
                         where to_regclass('frontdesk_index.c' || number || part) is null)",
    )
    .bind(name)
    .execute(connection)
    .await
    .map(drop)
    .map_err(failure)
}

/// Tenants whose own table, or the view over it, somebody dropped, with their numbers. In a transaction.
pub(super) async fn owners_without_table(
    connection: &mut PgConnection,
    collection: &Collection,
) -> Result<Vec<(Uuid, i64)>, IndexError> {
    connection
        .execute("set local frontdesk_index.operator = 'on'")
        .await
        .map_err(failure)?;
    let own = format!("frontdesk_index.c{}_own", collection.number);
    let statement = format!(
        "select tenant_id, number from {}
          where owns and (to_regclass('{own}' || number) is null or to_regclass('{own}' || number || '_rows') is null)",
        collection.tenants()
    );
    let mut owners = Vec::new();
    // Names are looked up as they are now, rows as they were when the statement began: of a tenant that was deleted in between the
    // second look has no row.
    for _ in 0..2 {
        owners = sqlx::query_as(AssertSqlSafe(statement.clone()))
            .fetch_all(&mut *connection)
            .await
            .map_err(failure)?;
        if owners.is_empty() {
            break;
        }
    }
    connection
        .execute("set local frontdesk_index.operator = 'off'")
        .await
        .map_err(failure)?;
    Ok(owners)
}

/// Forgets what is left of tenants whose own table is gone: all is to be filled again, as another generation.
pub(super) async fn forget_owners_without_table(
    connection: &mut PgConnection,
    collection: &mut Collection,
) -> Result<(), IndexError> {
    let owners = owners_without_table(connection, collection).await?;
    for (tenant_id, number) in &owners {
        let forget = format!(
            "set local frontdesk_index.tenant_id = '{tenant_id}';
             delete from {};
             delete from {};
             delete from {};
             {};
             set local frontdesk_index.tenant_id = ''",
            of_tenant(&collection.points(), *tenant_id),
            of_tenant(&collection.terms(), *tenant_id),
            of_tenant(&collection.tenants(), *tenant_id),
            collection.drop_own(*number),
        );
        connection.execute(AssertSqlSafe(forget)).await.map_err(failure)?;
        tracing::warn!(%tenant_id, "a table of the index is gone that was this tenant's own: all is put into the index again");
    }
    if !owners.is_empty() {
        collection.generation = sqlx::query_scalar(
            "update frontdesk_index.collection set generation = gen_random_uuid() where number = $1
             returning generation::text",
        )
        .bind(collection.number)
        .fetch_one(&mut *connection)
        .await
        .map_err(failure)?;
    }
    Ok(())
}

fn of_tenant(table: &str, tenant_id: Uuid) -> String {
    format!("{table} where tenant_id = '{tenant_id}'")
}
