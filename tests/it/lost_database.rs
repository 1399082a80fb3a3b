//! PostgreSQL that goes away and comes back: nobody waits for ever, and nobody pays for connections that died at rest.

use std::time::{Duration, Instant};

use frontdesk::db::{DatabaseUrl, Db, Scope};
use frontdesk::on;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::harness::app::TestOptions;
use crate::harness::databases::{create_postgres_database, postgres_server};
use crate::harness::generations::search;

async fn ask(db: &Db) -> Result<i64, String> {
    let mut conn = db
        .read(Scope::Operator)
        .await
        .map_err(|error| error.to_string())?;
    let counted: Result<i64, sqlx::Error> =
        on!(conn, c => sqlx::query_scalar("select count(*) from tenant").fetch_one(c).await);
    counted.map_err(|error| error.to_string())
}

#[tokio::test]
async fn connections_that_died_while_they_rested_cost_nobody_an_error() {
    let Some(server) = postgres_server() else { return };
    let url = create_postgres_database(&server).await;
    let db = Db::open(&DatabaseUrl::Postgres(url.clone()), 5)
        .await
        .expect("it opens");
    for asked in futures::future::join_all((0..5).map(|_| ask(&db))).await {
        assert_eq!(asked, Ok(0));
    }
    let mut admin = PgConnection::connect(&url).await.expect("connected");

    admin
        .execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
        .await
        .expect("they end");

    for _ in 0..6 {
        assert_eq!(ask(&db).await, Ok(0));
    }
}

/// Stands between us and the server, until it is told to hold its breath.
async fn stand_between(server: &url::Url) -> (url::Url, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut through = server.clone();
    through
        .set_port(Some(listener.local_addr().expect("bound").port()))
        .expect("a port");
    let target = format!(
        "{}:{}",
        server.host_str().expect("a host"),
        server.port().unwrap_or(5432)
    );
    let (hold, held) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (target, mut held) = (target.clone(), held.clone());
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(target).await else {
                    return;
                };
                let told = async { drop(held.wait_for(|held| *held).await) };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    // Both ends stay open, and nothing comes through any more.
                    () = told => std::future::pending().await,
                }
            });
        }
    });
    (through, hold)
}

#[tokio::test]
async fn a_database_that_hangs_is_waited_for_no_longer_than_ten_seconds_each_time() {
    let Some(server) = postgres_server() else { return };
    let url: url::Url = create_postgres_database(&server).await.parse().expect("a URL");
    if url.host_str().is_none_or(str::is_empty) {
        return;
    }
    let (through, hold) = stand_between(&url).await;
    let db = Db::open(&DatabaseUrl::Postgres(through.into()), 3)
        .await
        .expect("it opens");
    assert_eq!(ask(&db).await, Ok(0));
    hold.send(true).expect("it listens");
    let started = Instant::now();

    let asked = futures::future::join_all((0..6).map(|_| ask(&db))).await;

    assert!(asked.iter().all(Result::is_err), "{asked:?}");
    assert!(
        started.elapsed() < Duration::from_secs(25),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn without_an_index_whose_database_hangs_questions_are_answered_from_the_rows() {
    let Some(server) = postgres_server() else { return };
    let url: url::Url = create_postgres_database(&server).await.parse().expect("a URL");
    if url.host_str().is_none_or(str::is_empty) {
        return;
    }
    let (through, hold) = stand_between(&url).await;
    let service = TestOptions::default()
        .set("index.backend", "pgvector")
        .set("index.url", through)
        .set("index.pgvector.max_connections", 4)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let question = "When are oak tables oiled?";
    let found = search(&acme, &desk.id, question).await;
    assert!(found["degraded"].is_null(), "{found}");

    hold.send(true).expect("it listens");
    let found = search(&acme, &desk.id, question).await;

    assert_eq!(found["degraded"][0]["code"], "index_unavailable", "{found}");
    assert_eq!(
        found["items"][0]["text"], "Oak tables are oiled twice a year.",
        "{found}"
    );
}
