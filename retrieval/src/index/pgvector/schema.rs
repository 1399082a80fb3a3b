//! The tables, all in a schema of their own. Made at the first start, by one process at a time.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::open::{Layout, refused};
use super::{failure, upkeep};
use crate::analysis;
use crate::index::IndexError;

/// Who makes tables waits for this lock.
pub(super) const MAKING_LOCK: i64 = 0x0066_6469_6e64_6578;

/// What searches and changes run as where the login would not be held by row-level security.
pub(super) const ROLE: &str = "frontdesk_index";

/// What statements of search have to call the lexemes of a row, so that the index over them serves.
pub(super) const LEXEMES_OF_WORDS: &str = "frontdesk_index.lexemes_of(words)";

/// Oldest pgvector that goes on searching its graph until a filter is satisfied.
const OLDEST_EXTENSION: (u32, u32) = (0, 8);

/// Tables of one embedding model. Those of another model, another precision or another analysis of words lie beside them.
#[derive(Debug, Clone)]
pub(super) struct Collection {
    pub(super) layout: Layout,
    /// Names this making of the tables, as it was when they were opened.
    pub(super) generation: String,
    pub(super) number: i32,
}

impl Collection {
    /// Points of all tenants, but for those that lie in tables of their tenants' own.
    pub(super) fn points(&self) -> String {
        format!("frontdesk_index.c{}_point", self.number)
    }

    /// In how many chunks of a tenant a term is.
    pub(super) fn terms(&self) -> String {
        format!("frontdesk_index.c{}_term", self.number)
    }

    /// One row for each tenant that has points.
    pub(super) fn tenants(&self) -> String {
        format!("frontdesk_index.c{}_tenant", self.number)
    }

    /// A tenant's own points, for whoever has set that tenant.
    pub(super) fn own(&self, tenant_number: i64) -> String {
        format!("frontdesk_index.c{}_own{tenant_number}", self.number)
    }

    /// The table beneath, which has neither row-level security, as no other index than that on ids works beneath it, nor
    /// rights for [`ROLE`].
    pub(super) fn own_rows(&self, tenant_number: i64) -> String {
        format!("frontdesk_index.c{}_own{tenant_number}_rows", self.number)
    }

    /// The statement that makes the index of a tenant's own table by which words are found.
    pub(super) fn index_of_lexemes(&self, tenant_number: i64) -> String {
        let (stem, rows) = (self.own_stem(tenant_number), self.own_rows(tenant_number));
        format!("create index {stem}_lexemes on {rows} using gin ({LEXEMES_OF_WORDS})")
    }

    /// The statements that drop a tenant's own table, as far as it is there.
    pub(super) fn drop_own(&self, tenant_number: i64) -> String {
        let (view, rows) = (self.own(tenant_number), self.own_rows(tenant_number));
        format!("drop view if exists {view}; drop table if exists {rows}")
    }

    /// The same without its schema, to name what belongs to it.
    pub(super) fn own_stem(&self, tenant_number: i64) -> String {
        format!("c{}_own{tenant_number}", self.number)
    }
}

/// Makes what is not there. The second value: the login is not held by row-level security, and has to become [`ROLE`].
pub(super) async fn prepare(
    connection: &mut PgConnection,
    layout: Layout,
) -> Result<(Collection, bool), IndexError> {
    let mut transaction = connection.begin().await.map_err(failure)?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(MAKING_LOCK)
        .execute(&mut *transaction)
        .await
        .map_err(failure)?;
    require_extension(&mut transaction).await?;
    let exists: bool = sqlx::query_scalar("select to_regclass('frontdesk_index.collection') is not null")
        .fetch_one(&mut *transaction)
        .await
        .map_err(failure)?;
    if !exists {
        transaction.execute(BASE).await.map_err(failure)?;
    }
    let knows_lexemes: bool =
        sqlx::query_scalar("select to_regprocedure('frontdesk_index.lexemes_of(sparsevec)') is not null")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failure)?;
    if !knows_lexemes {
        transaction.execute(LEXEMES).await.map_err(failure)?;
    }
    let knows_age: bool = sqlx::query_scalar(
        "select exists (select from pg_attribute
                         where attrelid = 'frontdesk_index.collection'::regclass and attname = 'made_at')",
    )
    .fetch_one(&mut *transaction)
    .await
    .map_err(failure)?;
    if !knows_age {
        transaction.execute(AGE).await.map_err(failure)?;
    }
    let mut collection = find_or_make_collection(&mut transaction, layout).await?;
    upkeep::forget_owners_without_table(&mut transaction, &mut collection).await?;
    index_lexemes_of_all(&mut transaction, &collection).await?;
    let bypasses: bool =
        sqlx::query_scalar("select rolsuper or rolbypassrls from pg_roles where rolname = current_user")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failure)?;
    if bypasses {
        let (points, terms, tenants) = (collection.points(), collection.terms(), collection.tenants());
        // Roles belong to the whole cluster, so another database's start may create it at the same moment.
        let grants = format!(
            "do $$ begin
                 if not exists (select from pg_roles where rolname = '{ROLE}') then create role {ROLE} nologin; end if;
             exception when duplicate_object or unique_violation then null;
             end $$;
             grant usage on schema frontdesk_index to {ROLE};
             grant select, insert, update, delete on {points}, {terms}, {tenants} to {ROLE}"
        );
        transaction
            .execute(AssertSqlSafe(grants))
            .await
            .map_err(failure)?;
    }
    transaction.commit().await.map_err(failure)?;
    Ok((collection, bypasses))
}

/// Has the extension installed in this database, where that is possible.
async fn require_extension(connection: &mut PgConnection) -> Result<(), IndexError> {
    const VERSION: &str = "select extversion from pg_extension where extname = 'vector'";
    let mut version: Option<String> = sqlx::query_scalar(VERSION)
        .fetch_optional(&mut *connection)
        .await
        .map_err(failure)?;
    if version.is_none() {
        connection
            .execute("create extension vector")
            .await
            .map_err(|error| {
                refused(&format!(
                    "this database has no extension \"vector\": install pgvector 0.8 or newer on the server and have a superuser run `create extension vector` in this database ({error})"
                ))
            })?;
        version = sqlx::query_scalar(VERSION)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failure)?;
    }
    let version = version.unwrap_or_default();
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST_EXTENSION {
        return Err(refused(&format!(
            "the extension \"vector\" of this database is {version}, and 0.8 or newer is needed: install a newer pgvector on the server and have a superuser run `alter extension vector update`"
        )));
    }
    Ok(())
}

const BASE: &str = "
create schema if not exists frontdesk_index;
create table frontdesk_index.collection (
    number integer generated always as identity primary key,
    name text not null unique,
    generation uuid not null default gen_random_uuid()
)";

/// When tables were made. Those of an earlier release count as made when it is asked for first.
const AGE: &str =
    "alter table frontdesk_index.collection add column made_at timestamptz not null default now()";

/// The terms of a chunk's words. Terms are numbers from 1 on, which are the positions of a `sparsevec`, and as lexemes these
/// numbers as they are written.
const LEXEMES: &str = "
create function frontdesk_index.lexemes_of(words sparsevec) returns tsvector
    language sql immutable parallel safe
    return array_to_tsvector(string_to_array(regexp_replace(split_part(words::text, '/', 1), ':[^,}]*|[{}]', '', 'g'), ','))
";

/// Gives tables of tenants' own that were made by an earlier release the index that words are found by, in place of the one over an
/// array of numbers. The array itself stays, as a process of that release may still ask for it.
async fn index_lexemes_of_all(
    connection: &mut PgConnection,
    collection: &Collection,
) -> Result<(), IndexError> {
    let lacking: Vec<i64> = sqlx::query_scalar(
        "select substring(relname from '^c[0-9]+_own([0-9]+)_rows$')::bigint
           from pg_class
          where relnamespace = 'frontdesk_index'::regnamespace
            and relkind = 'r'
            and relname ~ $1
            and to_regclass('frontdesk_index.' || regexp_replace(relname, '_rows$', '_lexemes')) is null",
    )
    .bind(format!("^c{}_own[0-9]+_rows$", collection.number))
    .fetch_all(&mut *connection)
    .await
    .map_err(failure)?;
    for tenant_number in lacking {
        let stem = collection.own_stem(tenant_number);
        let exchange = format!(
            "set local maintenance_work_mem = '{}MB';
             {};
             drop index if exists frontdesk_index.{stem}_terms",
            collection.layout.build_memory_mb,
            collection.index_of_lexemes(tenant_number),
        );
        connection
            .execute(AssertSqlSafe(exchange))
            .await
            .map_err(failure)?;
    }
    Ok(())
}

async fn find_or_make_collection(
    connection: &mut PgConnection,
    layout: Layout,
) -> Result<Collection, IndexError> {
    let name = format!("{}, analysis {}", layout.name, analysis::ANALYSIS);
    upkeep::forget_without_tables(connection, &name).await?;
    let made = sqlx::query_as::<_, (i32, String)>(
        "insert into frontdesk_index.collection (name) values ($1)
         on conflict (name) do nothing returning number, generation::text",
    )
    .bind(&name)
    .fetch_optional(&mut *connection)
    .await
    .map_err(failure)?;
    let is_new = made.is_some();
    let (number, generation) = match made {
        Some(made) => made,
        None => {
            sqlx::query_as("select number, generation::text from frontdesk_index.collection where name = $1")
                .bind(&name)
                .fetch_one(&mut *connection)
                .await
                .map_err(failure)?
        }
    };
    let collection = Collection {
        layout,
        generation,
        number,
    };
    if is_new {
        connection
            .execute(AssertSqlSafe(tables(&collection)))
            .await
            .map_err(failure)?;
    }
    Ok(collection)
}

fn tables(collection: &Collection) -> String {
    let (points, terms, tenants) = (collection.points(), collection.terms(), collection.tenants());
    let vector = collection.layout.vector_type();
    let number = collection.number;
    // A row stays in one piece up to a page, as a vector kept elsewhere costs another look for each point.
    format!(
        "create table {points} (
             tenant_id uuid not null,
             chunk_id uuid not null,
             document_id uuid not null,
             source_id uuid not null,
             version bigint generated always as identity,
             text_hash bigint not null,
             published bigint,
             language text,
             tags text[] not null,
             groups text[] not null,
             words sparsevec not null,
             vector {vector},
             primary key (tenant_id, chunk_id)
         ) with (toast_tuple_target = 8160);
         create index c{number}_point_document on {points} (tenant_id, document_id);
         create table {terms} (
             tenant_id uuid not null,
             term integer not null,
             chunks bigint not null,
             peak real not null,
             primary key (tenant_id, term)
         ) with (fillfactor = 80);
         create table {tenants} (
             tenant_id uuid primary key,
             number bigint generated always as identity,
             chunks bigint not null default 0,
             fresh bigint not null default 0,
             owns boolean not null default false
         ) with (fillfactor = 50);
         {}{}{}",
        wall(&points, ""),
        wall(&terms, ""),
        // Only this one tells which tenants there are, for those who look after all of them.
        wall(
            &tenants,
            "or current_setting('frontdesk_index.operator', true) = 'on'"
        ),
    )
}

fn wall(table: &str, or: &str) -> String {
    format!(
        "alter table {table} enable row level security;
         alter table {table} force row level security;
         create policy tenant_wall on {table}
             using (tenant_id = nullif(current_setting('frontdesk_index.tenant_id', true), '')::uuid {or});"
    )
}
