//! The index in the PostgreSQL of the rows: what a transaction says of documents holds in both, for everybody at the same moment,
//! whatever ends it. Other indexes follow the rows; there these tests have nothing to hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use frontdesk::on;
use retrieval::index::{Audience, Filter, SearchQuery};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::harness::app::{Tenant, TestApp, TestOptions, index_backend};
use crate::harness::stored::{count_rows, page_about};
use crate::harness::work::{kill, spawn_worker};

/// What is in rows or in the index alone, in one statement: of one moment.
const DIFFERING: &str = "
    with points as (select tenant_id, chunk_id from frontdesk_index.c1_point),
         chunks as (select distinct tenant_id, id from chunk)
    select count(*)
      from points
      full join chunks on chunks.id = points.chunk_id and chunks.tenant_id = points.tenant_id
     where points.chunk_id is null or chunks.id is null";

/// A service whose index lies with its rows; none where these tests run on another index.
async fn start() -> Option<TestApp> {
    start_with(TestOptions::default()).await
}

async fn start_with(options: TestOptions) -> Option<TestApp> {
    match index_backend().as_str() {
        "pgvector" => Some(options.start().await),
        _ => None,
    }
}

/// A connection that sees everything.
async fn owner(service: &TestApp) -> PgConnection {
    PgConnection::connect(&service.app.config.database.url)
        .await
        .expect("the server answers")
}

async fn differing(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(DIFFERING)
        .fetch_one(connection)
        .await
        .expect("a count")
}

/// Compares rows and points until it is told to end; how often it did.
struct Watch {
    is_over: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    looking: JoinHandle<()>,
}

impl Watch {
    async fn start(service: &TestApp) -> Self {
        let (is_over, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut connection = owner(service).await;
        let (over, counter) = (Arc::clone(&is_over), Arc::clone(&looks));
        let looking = tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                assert_eq!(differing(&mut connection).await, 0);
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            is_over,
            looks,
            looking,
        }
    }

    async fn end(self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.looking.await.expect("rows and points were the same");
        assert!(self.looks.load(Ordering::SeqCst) > 0);
    }
}

/// The documents that the index itself finds for somebody without access groups.
async fn found_without_groups(tenant: &Tenant<'_>, text: &str) -> Vec<String> {
    let service = tenant.service;
    let mut connection = owner(service).await;
    let sources: Vec<Uuid> = sqlx::query_scalar("select id from source")
        .fetch_all(&mut connection)
        .await
        .expect("sources");
    let query = SearchQuery {
        text: text.to_owned(),
        vector: None,
        filter: Filter {
            sources: sources.into_iter().map(retrieval::SourceId).collect(),
            audience: Audience::Groups(Vec::new()),
            ..Filter::default()
        },
        limit: 10,
        languages: Vec::new(),
    };
    let index = service.app.spaces.wanted().index.clone();
    let found = index.search(retrieval::TenantId(tenant.id.0), query).await;
    let chunks: Vec<Uuid> = found
        .expect("hits")
        .hits
        .iter()
        .map(|hit| hit.chunk_id.0)
        .collect();
    let documents: Vec<Uuid> =
        sqlx::query_scalar("select distinct document_id from chunk where id = any($1)")
            .bind(chunks)
            .fetch_all(&mut connection)
            .await
            .expect("documents");
    documents.iter().map(Uuid::to_string).collect()
}

/// Jobs of these kinds that wait to be carried out.
async fn waiting_jobs(service: &TestApp, kind: &str) -> i64 {
    count_rows(
        service,
        &format!("job where state = 'queued' and kind = '{kind}'"),
    )
    .await
}

#[tokio::test]
async fn who_may_read_a_document_holds_in_the_index_when_the_request_is_answered() {
    let Some(service) = start().await else { return };
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let found = async || found_without_groups(&acme, "oak tables").await;
    assert_eq!(found().await, std::slice::from_ref(&oak));

    acme.patch(
        &format!("/api/documents/{oak}"),
        json!({ "access_groups": ["staff"] }),
    )
    .await
    .expect(200);
    assert_eq!(found().await, Vec::<String>::new());
    acme.patch(&format!("/api/documents/{oak}"), json!({ "access_groups": null }))
        .await
        .expect(200);
    assert_eq!(found().await, [oak]);

    let sources = format!("/api/chatbots/{}/sources", desk.id);
    let source = acme.get(&sources).await.expect(200).json()["items"][0]["id"].clone();
    let source = format!("/api/sources/{}", source.as_str().expect("an id"));
    acme.patch(&source, json!({ "access_groups": ["staff"] }))
        .await
        .expect(200);
    assert_eq!(found().await, Vec::<String>::new());
    assert_eq!(
        waiting_jobs(&service, "tell_index").await,
        0,
        "nothing is left to tell"
    );
}

#[tokio::test]
async fn a_deleted_document_has_left_the_index_when_the_request_is_answered() {
    let Some(service) = start().await else { return };
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    let hours = desk.publish("hours.md", "The showroom opens at ten.").await;
    let added = acme
        .post(
            &format!("/api/documents/{hours}/chunks"),
            json!({ "text": "Closed on Sundays." }),
        )
        .await
        .expect(201)
        .json();
    let added = added["id"].as_str().expect("an id").to_owned();
    assert_eq!(acme.indexed_chunks().await, 3, "found by its words at once");
    assert_eq!(
        found_without_groups(&acme, "sundays").await,
        std::slice::from_ref(&hours)
    );

    acme.delete(&format!("/api/documents/{hours}/chunks/{added}"))
        .await
        .expect(204);
    assert_eq!(acme.indexed_chunks().await, 2);
    acme.delete(&format!("/api/documents/{oak}")).await.expect(204);
    assert_eq!(acme.indexed_chunks().await, 1);
    assert_eq!(
        found_without_groups(&acme, "oak tables").await,
        Vec::<String>::new()
    );

    service.drain_jobs().await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_commit_that_fails_behind_the_points_leaves_neither_them_nor_rows() {
    let options = TestOptions::default().set("jobs.max_attempts", 1);
    let Some(service) = start_with(options).await else {
        return;
    };
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let mut connection = owner(&service).await;
    // Asked when everything is written, and the transaction is about to be committed.
    connection
        .execute(
            "create function refuse() returns trigger language plpgsql as $$ begin
                 if exists (select from frontdesk_index.c1_point where chunk_id = new.id) then
                     raise exception 'refused, although its point is written';
                 end if;
                 return null;
             end $$;
             alter function refuse() security definer;
             create constraint trigger refuse after insert on chunk deferrable initially deferred
                 for each row execute function refuse()",
        )
        .await
        .expect("a trigger");

    desk.upload(&[("oak.md", b"Oak tables are oiled twice a year.")])
        .await
        .expect(202);
    service.drain_jobs().await;
    assert_eq!(count_rows(&service, "chunk").await, 0);
    assert_eq!(acme.indexed_chunks().await, 0);

    connection
        .execute("drop trigger refuse on chunk")
        .await
        .expect("dropped");
    desk.publish("oak.md", "Oak tables are oiled three times a year.")
        .await;
    acme.check_stores_agree().await;
    assert_eq!(acme.indexed_chunks().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_points_are_the_same_at_every_moment_whatever_dies() {
    let Some(service) = start().await else { return };
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("first.md", "The showroom opens at ten.").await;
    let watch = Watch::start(&service).await;
    let mut connection = owner(&service).await;

    for round in 0..6 {
        let files: Vec<(String, String)> = (0..12)
            .map(|number| {
                (
                    format!("{number}.md"),
                    page_about(&[&format!("oak{number}"), &format!("pine{round}x{number}"), "beech"]),
                )
            })
            .collect();
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_bytes()))
            .collect();
        let taken = desk.upload(&files).await.expect(202).json();
        let workers = [spawn_worker(&service.app), spawn_worker(&service.app)];
        let deleted = taken["items"][round]["id"].as_str().expect("an id");
        // As the machine goes: sooner or later in what is under way.
        tokio::time::sleep(Duration::from_millis(40 * u64::try_from(round).expect("small"))).await;
        if round % 2 == 0 {
            for worker in workers {
                kill(worker).await;
            }
        } else {
            connection
                .execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity
                      where datname = current_database() and application_name = 'frontdesk'",
                )
                .await
                .expect("ended");
            for worker in workers {
                let _ = worker.await;
            }
        }
        acme.delete(&format!("/api/documents/{deleted}"))
            .await
            .expect(204);
        // Leases of the dead run out.
        service.clock.advance(TimeDelta::hours(1));
    }
    service.drain_jobs().await;
    watch.end().await;

    assert_eq!(differing(&mut connection).await, 0);
    assert_eq!(count_rows(&service, "document where state <> 'indexed'").await, 0);
    acme.check_stores_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_many_chunks_comes_and_goes_with_its_points() {
    let Some(service) = start().await else { return };
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("first.md", "The showroom opens at ten.").await;
    let watch = Watch::start(&service).await;
    let words: Vec<String> = (0..600).map(|number| format!("wood{number}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();

    let woods = desk.publish("woods.md", &page_about(&words)).await;
    assert!(acme.indexed_chunks().await > 600);
    // Another version of all of it, which takes the place of the first one and has that dropped.
    desk.publish("woods.md", &page_about(&words[..400])).await;
    acme.delete(&format!("/api/documents/{woods}")).await.expect(204);
    service.drain_jobs().await;
    watch.end().await;

    assert_eq!(acme.indexed_chunks().await, 1);
    acme.check_stores_agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_one_tenant_side_by_side_are_all_indexed() {
    let Some(service) = start().await else { return };
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    for batch in 0..8 {
        let files: Vec<(String, String)> = (0..6)
            .map(|number| {
                let woods = ["oak", "pine", "beech"].map(|wood| format!("{wood}{batch}x{number}"));
                (
                    format!("{batch}x{number}.md"),
                    page_about(&woods.each_ref().map(String::as_str)),
                )
            })
            .collect();
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_bytes()))
            .collect();
        desk.upload(&files).await.expect(202);
    }

    let workers: Vec<_> = (0..6).map(|_| spawn_worker(&service.app)).collect();
    for worker in workers {
        worker.await.expect("a worker");
    }

    assert_eq!(count_rows(&service, "document where state = 'indexed'").await, 48);
    let tries = count_rows(&service, "job where kind = 'index_documents' and attempt > 1").await;
    assert_eq!(tries, 0, "nobody was in anybody's way");
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_transaction_of_one_tenant_does_not_reach_anothers_points() {
    let Some(service) = start().await else { return };
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let (desk, other) = (acme.chatbot("Desk").await, globex.chatbot("Desk").await);
    desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    other
        .publish("oak.md", "Oak tables are oiled twice a year.")
        .await;
    let mut connection = owner(&service).await;
    let chunk: Uuid = sqlx::query_scalar("select id from chunk where tenant_id = $1")
        .bind(globex.id.0)
        .fetch_one(&mut connection)
        .await
        .expect("a chunk");
    let space = service.app.spaces.wanted().clone();
    let index = space.index_with_rows().expect("it lies with the rows");

    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    let foreign = retrieval::index::IndexChange::DeleteChunks(vec![retrieval::ChunkId(chunk)]);
    write.change_index(acme.id, index, foreign);
    write.commit().await.expect("committed");

    assert_eq!(globex.indexed_chunks().await, 1);
    // The rows' own transaction has no tenant in the index unless it changes it.
    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    let reached = on!(write, c => c.execute(AssertSqlSafe("select from frontdesk_index.c1_point".to_owned())).await.map(drop));
    assert!(reached.is_err());
}
