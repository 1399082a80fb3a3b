//! Who may connect to the index in PostgreSQL, what they see, and what is refused at the start. Needs the server that
//! `scripts/with-postgres` starts, as [`crate::pgvector_index`] does.

use retrieval::index::{Index, IndexError, PgvectorIndex, PgvectorOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::pgvector_index::{EAGER, database, moved, open_eager, options, run};
use crate::samples::{by_vector, chunk, found, point, tenant, vector};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_its_tenant_sees_nothing() {
    let Some(url) = database().await else { return };
    let index = open_eager(&url).await;
    index
        .upsert(tenant(1), (0..80).map(|n| point(n, "private")).collect())
        .await
        .expect("stored");
    moved(&url).await;
    index
        .upsert(tenant(1), vec![point(99, "private")])
        .await
        .expect("stored");

    let mut connection = PgConnection::connect(&url).await.expect("the server answers");
    connection
        .execute("set role frontdesk_index")
        .await
        .expect("the role of searches");
    for set_to in ["", &tenant(2).to_string()] {
        connection
            .execute(AssertSqlSafe(format!(
                "set frontdesk_index.tenant_id = '{set_to}'"
            )))
            .await
            .expect("set");
        for table in ["c1_point", "c1_term", "c1_tenant", "c1_own1"] {
            let seen: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
                "select count(*) from frontdesk_index.{table}"
            )))
            .fetch_one(&mut connection)
            .await
            .expect("a count");
            assert_eq!(seen, 0, "{table} for {set_to:?}");
        }
    }
    let beneath = connection
        .execute("select from frontdesk_index.c1_own1_rows")
        .await;
    assert!(
        beneath.is_err(),
        "the rows beneath the view are not for that role"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_privileges_is_enough_where_the_extension_is_installed() {
    let Some(url) = database().await else { return };
    let login = format!("plain_{}", std::process::id());
    run(
        &url,
        &format!("create role {login} login; create extension vector"),
    )
    .await;
    let mut plain = url::Url::parse(&url).expect("a URL");
    plain.set_username(&login).expect("a user name");
    let refused = PgvectorIndex::open(options(plain.as_str())).await;
    assert!(refused.is_err(), "it may not make a schema yet");
    let name = plain.path().trim_start_matches('/');
    run(&url, &format!("grant create on database {name} to {login}")).await;

    let index = PgvectorIndex::open_tuned(options(plain.as_str()), EAGER)
        .await
        .expect("opened");
    for tenant_id in [tenant(1), tenant(2)] {
        index
            .upsert(tenant_id, (0..80).map(|n| point(n, "some words")).collect())
            .await
            .expect("stored");
    }
    moved(&url).await;
    index.delete_tenant(tenant(2)).await.expect("deleted");

    assert_eq!(found(&index, tenant(1), by_vector(vector(3))).await[0], chunk(3));
    assert_eq!(index.count(tenant(2)).await.expect("a count"), 0);
    let mut connection = PgConnection::connect(plain.as_str())
        .await
        .expect("the server answers");
    let seen: i64 = sqlx::query_scalar("select (select count(*) from frontdesk_index.c1_tenant) + (select count(*) from frontdesk_index.c1_own1)")
        .fetch_one(&mut connection)
        .await
        .expect("a count");
    assert_eq!(seen, 0, "row-level security holds the owner of the tables, too");
    connection.close().await.expect("closed");
    index.close().await.expect("closed");
    run(&url, &format!("drop owned by {login} cascade")).await;
    run(&url, &format!("drop role {login}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_extension_says_what_to_install() {
    let Some(url) = database().await else { return };
    let login = format!("bare_{}", std::process::id());
    run(&url, &format!("create role {login} login")).await;
    let mut plain = url::Url::parse(&url).expect("a URL");
    plain.set_username(&login).expect("a user name");

    let opened = PgvectorIndex::open(options(plain.as_str())).await;

    let Err(IndexError::Refused { reason }) = opened else {
        panic!("opened without the extension");
    };
    assert!(reason.contains("create extension vector"), "{reason}");
    run(&url, &format!("drop role {login}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_graph_can_be_made_of_is_refused_at_the_start() {
    let too_long = |dimension, halfvec| PgvectorOptions {
        dimension: Some(dimension),
        halfvec,
        ..options("postgres://127.0.0.1:1/none")
    };

    for (dimension, halfvec, says) in [(3_072, false, "index.halfvec"), (5_000, true, "at most 4000")] {
        let Err(IndexError::Refused { reason }) = PgvectorIndex::open(too_long(dimension, halfvec)).await
        else {
            panic!("opened with vectors of {dimension} values");
        };
        assert!(reason.contains(says), "{reason}");
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_refused_and_a_server_that_is_not_there_may_come_back() {
    let Some(url) = database().await else { return };
    let elsewhere = format!("{url}_that_there_is_not");

    let refused = PgvectorIndex::open(options(&elsewhere)).await.err();
    assert!(
        matches!(&refused, Some(IndexError::Refused { reason }) if reason.contains("does not let us in")),
        "{refused:?}"
    );
    let nobody = PgvectorIndex::open(options("postgres://127.0.0.1:9/none"))
        .await
        .err();
    assert!(
        matches!(nobody, Some(IndexError::Unavailable { .. })),
        "{nobody:?}"
    );
}
