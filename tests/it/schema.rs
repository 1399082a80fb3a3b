//! The two engines' schemas are one: the same tables, columns, types, null-ness, unique keys and references.

use std::collections::BTreeSet;

use frontdesk::db::{DatabaseUrl, Db, Scope};
use frontdesk::on;
use sqlx::AssertSqlSafe;

use crate::harness::databases::{create_postgres_database, databases, postgres_server, run_as_owner};

/// One fact about a schema, as a line that can be compared.
type Facts = BTreeSet<String>;

/// What a PostgreSQL type is on SQLite.
fn on_sqlite(postgres_type: &str) -> &str {
    match postgres_type {
        "uuid" | "bytea" => "blob",
        "timestamp with time zone" | "jsonb" | "text" => "text",
        "bigint" => "integer",
        "double precision" => "real",
        "boolean" => "boolean",
        other => panic!("{other}: say here what this is on SQLite"),
    }
}

async fn all<T>(db: &Db, text: &str) -> Vec<T>
where
    T: Send
        + Unpin
        + for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow>
        + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
{
    let mut conn = db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_as(AssertSqlSafe(text.to_owned())).fetch_all(c).await)
        .expect("the schema can be read")
}

async fn sqlite_facts(db: &Db) -> Facts {
    let mut facts = Facts::new();
    let tables: Vec<(String,)> = all(db, "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%' and name not like '\\_%' escape '\\'").await;
    for (table,) in tables {
        let columns: Vec<(String, String, bool, i64)> = all(
            db,
            &format!("select name, lower(type), \"notnull\" or pk > 0, pk from pragma_table_info('{table}')"),
        )
        .await;
        let mut key: Vec<(i64, String)> = Vec::new();
        for (column, kind, required, place) in columns {
            facts.insert(format!(
                "{table}.{column} {kind}{}",
                if required { " not null" } else { "" }
            ));
            if place > 0 {
                key.push((place, column));
            }
        }
        key.sort();
        facts.insert(unique(
            &table,
            key.into_iter().map(|(_, column)| column).collect(),
            false,
        ));
        let indexes: Vec<(String, bool)> = all(
            db,
            &format!("select name, partial from pragma_index_list('{table}') where \"unique\""),
        )
        .await;
        for (index, partial) in indexes {
            let columns: Vec<(String,)> = all(
                db,
                &format!("select name from pragma_index_info('{index}') order by seqno"),
            )
            .await;
            facts.insert(unique(
                &table,
                columns.into_iter().map(|(column,)| column).collect(),
                partial,
            ));
        }
        let references: Vec<(String, String, String)> = all(
            db,
            &format!("select \"from\", \"table\", lower(on_delete) from pragma_foreign_key_list('{table}')"),
        )
        .await;
        facts.extend(references.into_iter().map(|(column, target, on_delete)| {
            format!("{table}.{column} -> {target} on delete {on_delete}")
        }));
    }
    facts
}

async fn postgres_facts(db: &Db) -> Facts {
    let mut facts = Facts::new();
    let columns: Vec<(String, String, String, bool)> = all(
        db,
        "select cast(table_name as text), cast(column_name as text), cast(data_type as text), is_nullable = 'NO'
           from information_schema.columns
          where table_schema = 'public' and table_name not like '\\_%'",
    )
    .await;
    for (table, column, kind, required) in columns {
        facts.insert(format!(
            "{table}.{column} {}{}",
            on_sqlite(&kind),
            if required { " not null" } else { "" }
        ));
    }
    let uniques: Vec<(String, String, bool)> = all(
        db,
        "select cast(t.relname as text),
                (select string_agg(cast(a.attname as text), ',' order by k.place)
                   from unnest(i.indkey) with ordinality as k (number, place)
                   join pg_attribute a on a.attrelid = t.oid and a.attnum = k.number),
                i.indpred is not null
           from pg_index i
           join pg_class t on t.oid = i.indrelid
           join pg_namespace n on n.oid = t.relnamespace
          where n.nspname = 'public' and i.indisunique and t.relname not like '\\_%'",
    )
    .await;
    for (table, columns, partial) in uniques {
        facts.insert(unique(
            &table,
            columns.split(',').map(str::to_owned).collect(),
            partial,
        ));
    }
    let references: Vec<(String, String, String, String)> = all(
        db,
        "select cast(t.relname as text), cast(a.attname as text), cast(f.relname as text),
                case r.confdeltype when 'c' then 'cascade' when 'a' then 'no action' when 'n' then 'set null' else 'other' end
           from pg_constraint r
           join pg_class t on t.oid = r.conrelid
           join pg_class f on f.oid = r.confrelid
           join pg_attribute a on a.attrelid = t.oid and a.attnum = any (r.conkey)
          where r.contype = 'f'",
    )
    .await;
    facts.extend(references.into_iter().map(|(table, column, target, on_delete)| {
        format!("{table}.{column} -> {target} on delete {on_delete}")
    }));
    facts
}

fn unique(table: &str, columns: Vec<String>, partial: bool) -> String {
    format!(
        "{table} unique ({}){}",
        columns.join(", "),
        if partial { " where …" } else { "" }
    )
}

#[tokio::test]
async fn both_engines_have_the_same_schema() {
    let mut schemas = Vec::new();
    for database in databases().await {
        let facts = match &database.db {
            Db::Sqlite { .. } => sqlite_facts(&database.db).await,
            Db::Postgres(_) => postgres_facts(&database.db).await,
        };
        assert!(
            facts.len() > 150,
            "{} shows only {} facts",
            database.engine,
            facts.len()
        );
        schemas.push((database.engine, facts));
    }
    // A run without PostgreSQL has nothing to compare with.
    let [(first_engine, first), (second_engine, second)] = schemas.as_slice() else {
        return;
    };
    let only_first: Vec<&String> = first.difference(second).collect();
    let only_second: Vec<&String> = second.difference(first).collect();

    assert!(
        only_first.is_empty() && only_second.is_empty(),
        "only on {first_engine}: {only_first:#?}\nonly on {second_engine}: {only_second:#?}"
    );
}

/// A table's columns, in an order that means something.
type Columns = (String, String);

/// Every reference to a row that may be deleted. Nothing deletes a tenant.
async fn references(db: &Db) -> Vec<Columns> {
    let text = match db {
        Db::Sqlite { .. } => {
            "select t.name, group_concat(r.\"from\", ',' order by r.seq)
               from sqlite_schema t, pragma_foreign_key_list(t.name) r
              where t.type = 'table' and r.\"table\" <> 'tenant'
              group by t.name, r.id"
        }
        Db::Postgres(_) => {
            "select cast(t.relname as text), string_agg(cast(a.attname as text), ',' order by k.place)
               from pg_constraint r
               join pg_class t on t.oid = r.conrelid
               join pg_class f on f.oid = r.confrelid
              cross join unnest(r.conkey) with ordinality as k (number, place)
               join pg_attribute a on a.attrelid = t.oid and a.attnum = k.number
              where r.contype = 'f' and f.relname <> 'tenant'
              group by r.oid, t.relname"
        }
    };
    all(db, text).await
}

/// Every index of all of a table's rows.
async fn indexes(db: &Db) -> Vec<Columns> {
    let text = match db {
        Db::Sqlite { .. } => {
            "select t.name, group_concat(c.name, ',' order by c.seqno)
               from sqlite_schema t, pragma_index_list(t.name) i, pragma_index_info(i.name) c
              where t.type = 'table' and not i.partial
              group by t.name, i.name"
        }
        Db::Postgres(_) => {
            "select cast(t.relname as text), string_agg(cast(a.attname as text), ',' order by k.place)
               from pg_index i
               join pg_class t on t.oid = i.indrelid
              cross join unnest(i.indkey) with ordinality as k (number, place)
               join pg_attribute a on a.attrelid = t.oid and a.attnum = k.number
              where i.indpred is null
              group by i.indexrelid, t.relname"
        }
    };
    all(db, text).await
}

#[tokio::test]
async fn what_refers_to_a_row_is_found_by_an_index_when_the_row_is_deleted() {
    for database in databases().await {
        let indexes = indexes(&database.db).await;
        let references = references(&database.db).await;
        assert!(references.len() > 20, "{}: {references:?}", database.engine);

        let slow: Vec<&Columns> = references
            .iter()
            .filter(|(table, columns)| {
                let wanted: BTreeSet<&str> = columns.split(',').collect();
                !indexes.iter().any(|(indexed, by)| {
                    indexed == table && by.split(',').take(wanted.len()).collect::<BTreeSet<_>>() == wanted
                })
            })
            .collect();

        assert!(
            slow.is_empty(),
            "{}: no index begins with {slow:?}: a deletion would look through the whole table",
            database.engine
        );
    }
}

#[tokio::test]
async fn a_release_that_is_taken_back_starts_on_a_postgresql_that_a_later_one_changed() {
    let Some(server) = postgres_server() else {
        eprintln!("LEFT OUT: there is no PostgreSQL; scripts/with-postgres starts one");
        return;
    };
    let url = DatabaseUrl::Postgres(create_postgres_database(&server).await);
    Db::open(&url, 2).await.expect("PostgreSQL opens").close().await;
    let later = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (999999, 'of a later release', true, ''::bytea, 0)";
    run_as_owner(&url, later).await;

    Db::open(&url, 2).await.expect("it opens again").close().await;
}
