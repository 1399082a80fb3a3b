//! Processes of two releases, or two configurations, that share rows and index server, and whose indexes differ in what they hold: here
//! in the precision of vectors, elsewhere in the rules of words. Documents are put into that of the process which started last.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use frontdesk::app::{App, Replacements};
use frontdesk::config::{Config, OnModelChange};
use frontdesk::db::Scope;
use frontdesk::generations::{self, operator};
use frontdesk::jobs::runner::{self, JobKinds};
use frontdesk::knowledge::verify::{self, Findings};
use frontdesk::on;
use retrieval::embed::Embedder;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, TestApp, TestOptions, WordEmbedder};
use crate::harness::databases::{create_postgres_database, postgres_server, run_as_owner};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::generations::{Held, new_embedder, search};
use crate::harness::stored::count_rows;
use crate::harness::work::{spawn_worker, until};

const QUESTION: &str = "How often is Table1 oiled?";

/// So long what is of former rules is kept.
const A_DAY: Duration = Duration::from_secs(24 * 3_600);

/// The process of the release before; none, said aloud, without a PostgreSQL.
async fn earlier(options: TestOptions) -> Option<TestApp> {
    let Some(server) = postgres_server() else {
        eprintln!("LEFT OUT: there is no PostgreSQL; scripts/with-postgres starts one");
        return None;
    };
    let options = options
        .set("database.url", create_postgres_database(&server).await)
        .set("database.max_connections", 8)
        .set("index.backend", "pgvector")
        .set("index.pgvector.max_connections", 4);
    Some(options.start().await)
}

/// A process that starts beside it, with an index of its own.
async fn later(earlier: &TestApp, embedder: Arc<dyn Embedder>) -> App {
    let mut config: Config = earlier.app.config.clone();
    config.index.pgvector.halfvec = true;
    earlier.replica_of(config, embedder, JobKinds::default()).await
}

/// Works off what is due, more than once.
async fn work(service: &TestApp, app: &App) {
    for _ in 0..20 {
        runner::drain(app).await.expect("the queue works");
        service.clock.advance(TimeDelta::seconds(30));
    }
}

/// How a process' own index and the rows compare, and whether its answers are said to be whole.
async fn compared(app: &App, held: &Held) -> (Findings, bool) {
    let live = generations::live_now(app, held.tenant).await.expect("it answers");
    let findings = verify::compare(app, held.tenant, &live.space, false).await;
    (findings.expect("compared"), live.is_whole)
}

async fn points(app: &App, held: &Held) -> u64 {
    compared(app, held).await.0.points
}

async fn lacks(service: &TestApp, held: &Held) -> Value {
    let found = search(&held.tenant(service), &held.chatbot, QUESTION).await;
    found["degraded"][0]["code"].clone()
}

/// The index that documents are put into for who is answered.
async fn noted(service: &TestApp) -> Option<String> {
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar(
        "select e.making from embedding_space e where e.name in (select g.space from generation g where g.state = 'live')",
    ).fetch_one(c).await).expect("one space")
}

/// A file that goes into the index part by part.
fn log_file() -> String {
    (0..60_000)
        .map(|number| format!("request{number} answered\n"))
        .collect()
}

#[tokio::test]
async fn an_earlier_process_leaves_the_later_index_to_those_who_have_it_and_what_it_indexes_gets_there() {
    let Some(service) = earlier(TestOptions::default()).await else {
        return;
    };
    let held = Held::with_documents(&service, 4).await;
    assert_eq!(lacks(&service, &held).await, Value::Null);
    let replica = later(&service, Arc::new(WordEmbedder)).await;

    // The earlier process takes the work more than once, and gives it back.
    work(&service, &service.app).await;
    assert_eq!(points(&replica, &held).await, 0);
    assert!(!compared(&replica, &held).await.1, "its answers say so");
    assert_eq!(lacks(&service, &held).await, "index_incomplete");

    // What it indexes meanwhile is found by itself at once, and owed to the later index.
    let acme = held.tenant(&service);
    let desk = Chatbot {
        tenant: &acme,
        id: held.chatbot.clone(),
    };
    desk.publish("4.md", "Table4 is oiled 4 times a year.").await;
    assert_eq!(points(&service.app, &held).await, 5);
    work(&service, &replica).await;
    let (findings, is_whole) = compared(&replica, &held).await;
    assert!(is_whole && findings.agree(), "{findings:?}");
    assert_eq!(findings.points, 5);

    let late = desk.publish("5.md", "Table5 is oiled 5 times a year.").await;
    assert_eq!(desk.document(&late).await["state"], "indexed");
    assert_eq!(points(&replica, &held).await, 5);
    assert!(!compared(&replica, &held).await.1, "its answers say so");
    work(&service, &replica).await;
    let (findings, is_whole) = compared(&replica, &held).await;
    assert!(is_whole && findings.agree(), "{findings:?}");
    assert_eq!(findings.points, 6);

    // So are changes that embed nothing, and removals.
    acme.patch(&format!("/api/documents/{late}"), json!({ "tags": ["oak"] }))
        .await
        .expect(200);
    work(&service, &service.app).await;
    let untold = "job where kind = 'tell_index' and state = 'queued'";
    assert_eq!(count_rows(&service, untold).await, 1);
    work(&service, &replica).await;
    assert_eq!(count_rows(&service, untold).await, 0);
    let (findings, _) = compared(&replica, &held).await;
    assert!(findings.agree(), "{findings:?}");
    acme.delete(&format!("/api/documents/{late}")).await.expect(204);
    work(&service, &service.app).await;
    work(&service, &replica).await;
    let (findings, _) = compared(&replica, &held).await;
    assert!(findings.agree(), "{findings:?}");

    assert_eq!(count_rows(&service, "job where attempt > 1").await, 0);
    replica.close().await;
}

#[tokio::test]
async fn a_release_that_is_taken_back_leaves_the_earlier_processes_with_their_own_index_after_a_while() {
    let Some(service) = earlier(TestOptions::default()).await else {
        return;
    };
    let held = Held::with_documents(&service, 2).await;
    let of_the_earlier = noted(&service).await;
    let replica = later(&service, Arc::new(WordEmbedder)).await;
    let of_the_later = noted(&service).await;
    assert_ne!(of_the_later, of_the_earlier);

    // As long as somebody has it, nobody takes its place.
    for _ in 0..6 {
        service.clock.advance(TimeDelta::minutes(50));
        replica.look_at_makings().await;
        service.app.look_at_makings().await;
        assert_eq!(noted(&service).await, of_the_later);
    }
    replica.close().await;
    service.clock.advance(TimeDelta::minutes(50));
    service.app.look_at_makings().await;
    assert_eq!(noted(&service).await, of_the_later, "it may come back");
    service.clock.advance(TimeDelta::minutes(11));
    service.app.look_at_makings().await;

    assert_eq!(noted(&service).await, of_the_earlier);
    operator::take_up(&service.app).await.expect("taken up");
    work(&service, &service.app).await;
    assert_eq!(lacks(&service, &held).await, Value::Null);
    assert!(compared(&service.app, &held).await.0.agree());
}

#[tokio::test]
async fn an_index_that_was_named_anew_is_the_same_one_to_processes_that_have_it_open() {
    let Some(service) = earlier(TestOptions::default()).await else {
        return;
    };
    let held = Held::with_documents(&service, 2).await;
    // As a start does that finds a large tenant's table gone.
    let anew = "update frontdesk_index.collection set generation = gen_random_uuid()";
    run_as_owner(&service.app.config.database_url(), anew).await;
    let config = service.app.config.clone();
    let replica = service
        .replica_of(config, Arc::new(WordEmbedder), JobKinds::default())
        .await;
    work(&service, &replica).await;
    assert!(compared(&replica, &held).await.1);

    service.app.look_at_makings().await;

    assert_eq!(lacks(&service, &held).await, Value::Null);
    replica.close().await;

    // As one does that may not note it.
    run_as_owner(&service.app.config.database_url(), anew).await;
    let before = noted(&service).await;
    service.app.look_at_makings().await;
    assert_ne!(noted(&service).await, before);
    operator::take_up(&service.app).await.expect("taken up");
    work(&service, &service.app).await;
    assert!(compared(&service.app, &held).await.1);
}

#[tokio::test]
async fn what_is_of_former_rules_goes_a_day_after_it_was_used_last() {
    let Some(service) = earlier(TestOptions::default()).await else {
        return;
    };
    Held::with_documents(&service, 1).await;
    // Tables of former rules, and present ones that are old.
    let former = "insert into frontdesk_index.collection (name)
                      select regexp_replace(name, '[0-9]+$', '1') from frontdesk_index.collection;
                  update frontdesk_index.collection set made_at = now() - interval '9 days'";
    run_as_owner(&service.app.config.database_url(), former).await;
    let remove_former = async || {
        operator::remove_former(&service.app, A_DAY)
            .await
            .expect("looked")
    };
    assert_eq!(
        remove_former().await,
        0,
        "documents are put into the present ones since today"
    );
    service.clock.advance(TimeDelta::hours(23));
    assert_eq!(remove_former().await, 0);

    // Meanwhile documents are put elsewhere, and here again.
    later(&service, Arc::new(WordEmbedder)).await.close().await;
    service.clock.advance(TimeDelta::hours(2));
    assert_eq!(remove_former().await, 0, "documents are put elsewhere");
    service.app.look_at_makings().await;
    assert_eq!(remove_former().await, 0, "since a moment ago");
    service.clock.advance(TimeDelta::hours(25));

    assert_eq!(
        remove_former().await,
        2,
        "and what was made at the other precision meanwhile"
    );
}

#[tokio::test]
async fn a_slow_process_does_not_say_that_the_head_of_a_document_is_in_that_was_lost_meanwhile() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let Some(service) = earlier(options.set("embedding.cache_mb", 0)).await else {
        return;
    };
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let document = desk.publish("requests.txt", &log_file()).await;
    let all = desk.document(&document).await["chunks"]
        .as_u64()
        .expect("a count");
    assert!(all > 512, "{all} chunks");
    let held = Held {
        tenant: acme.id,
        key: acme.key.clone(),
        chatbot: desk.id.clone(),
    };
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query("update generation set is_filled = $1, filled_to = null").bind(false).execute(c).await.map(drop))
        .expect("written");
    write.commit().await.expect("committed");
    operator::take_up(&service.app).await.expect("taken up");
    embedder.hold();
    let worker = spawn_worker(&service.app);
    embedder.let_first_pass().await;

    let replica = later(&service, embedder.clone()).await;
    embedder.let_one_go();
    worker.await.expect("it gives the rest back");

    assert_eq!(
        count_rows(&service, "generation where place_document is not null").await,
        0
    );
    until("the later process fills its own", async || {
        service.clock.advance(TimeDelta::seconds(30));
        runner::drain(&replica).await.expect("the queue works");
        compared(&replica, &held).await.1
    })
    .await;
    let (findings, _) = compared(&replica, &held).await;
    assert!(findings.agree(), "{findings:?}");
    assert_eq!(findings.points, all);
    replica.close().await;
}

#[tokio::test]
async fn a_large_document_waits_long_for_who_has_the_later_index_and_a_deleted_one_not_at_all() {
    let Some(service) = earlier(TestOptions::default()).await else {
        return;
    };
    let held = Held::with_documents(&service, 1).await;
    let replica = later(&service, Arc::new(WordEmbedder)).await;
    let acme = held.tenant(&service);
    let desk = Chatbot {
        tenant: &acme,
        id: held.chatbot.clone(),
    };
    let reply = desk
        .upload(&[("deleted.md", "Nobody reads this.".as_bytes())])
        .await
        .expect(202);
    let deleted = reply.json()["items"][0]["id"]
        .as_str()
        .expect("a document")
        .to_owned();
    acme.delete(&format!("/api/documents/{deleted}"))
        .await
        .expect(204);

    let large = desk.publish("requests.txt", &log_file()).await;

    let waiting = "job where kind = 'index_documents' and state = 'queued'";
    assert_eq!(count_rows(&service, waiting).await, 1, "the large one");
    let long = format!("{waiting} and run_at > created_at + interval '9 minutes'");
    assert_eq!(count_rows(&service, &long).await, 1);
    assert_eq!(
        count_rows(&service, "document_version where state = 'waiting'").await,
        0
    );
    until("the later process indexes it", async || {
        service.clock.advance(TimeDelta::minutes(1));
        runner::drain(&replica).await.expect("the queue works");
        desk.document(&large).await["state"] == "indexed" && compared(&replica, &held).await.1
    })
    .await;
    assert!(compared(&replica, &held).await.0.agree());
    replica.close().await;
}

#[tokio::test]
async fn who_cannot_fill_an_index_takes_nobodys_place() {
    let Some(service) = earlier(TestOptions::default()).await else {
        return;
    };
    let held = Held::with_documents(&service, 2).await;
    let of_the_earlier = noted(&service).await;

    // It has another model configured, and cannot load the one that answers.
    let mut config = service.app.config.clone();
    config.index.pgvector.halfvec = true;
    config.index.on_model_change = OnModelChange::Wait;
    let without_the_model = service
        .replica_of(config.clone(), new_embedder(), JobKinds::default())
        .await;
    assert_eq!(noted(&service).await, of_the_earlier);
    let replaced = Replacements {
        embedder: Some(Arc::new(WordEmbedder)),
        clock: Some(service.clock.clone()),
        ..Replacements::default()
    };
    let without_workers = App::build_to_answer_with(config, replaced)
        .await
        .expect("it starts");
    assert_eq!(noted(&service).await, of_the_earlier);

    // Who has no workers takes it not even where nobody says to have the noted one. Who has them does: their work would wait for ever.
    service.clock.advance(TimeDelta::hours(3));
    without_workers.look_at_makings().await;
    assert_eq!(noted(&service).await, of_the_earlier);
    assert_eq!(lacks(&service, &held).await, Value::Null);
    without_the_model.look_at_makings().await;
    assert_ne!(noted(&service).await, of_the_earlier);
    // It does not keep it from who can fill his own.
    service.clock.advance(TimeDelta::minutes(61));
    without_the_model.look_at_makings().await;
    service.app.look_at_makings().await;
    assert_eq!(noted(&service).await, of_the_earlier);
    without_the_model.close().await;
    without_workers.close().await;
}

#[tokio::test]
async fn a_large_document_that_is_begun_while_another_index_is_noted_is_left_to_who_has_that_one() {
    let Some(service) = earlier(TestOptions::default()).await else {
        return;
    };
    let held = Held::with_documents(&service, 1).await;
    let acme = held.tenant(&service);
    let desk = Chatbot {
        tenant: &acme,
        id: held.chatbot.clone(),
    };
    let reply = desk
        .upload(&[("requests.txt", log_file().as_bytes())])
        .await
        .expect(202);
    let large = reply.json()["items"][0]["id"]
        .as_str()
        .expect("a document")
        .to_owned();
    // Whoever notes another index waits for this, and the earlier process for whoever notes one.
    let mut commit = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    on!(commit, c => sqlx::query("select id from generation for share").execute(c).await.map(drop))
        .expect("held");
    let locks = "pg_locks
        where locktype = 'advisory'
          and classid = 28001
          and database = (select oid from pg_database where datname = current_database())";

    let begin_large = async {
        let noting = format!("{locks} and granted");
        until("another index is being noted", async || {
            count_rows(&service, &noting).await == 1
        })
        .await;
        let worker = spawn_worker(&service.app);
        let waiting = format!("{locks} and not granted");
        until("the earlier process waits", async || {
            count_rows(&service, &waiting).await == 1
        })
        .await;
        commit.commit().await.expect("committed");
        worker.await.expect("it gives the document back");
    };
    let (replica, ()) = tokio::join!(later(&service, Arc::new(WordEmbedder)), begin_large);

    let versions = "document_version where state = 'waiting'";
    assert_eq!(count_rows(&service, versions).await, 0);
    until("the later process indexes it", async || {
        service.clock.advance(TimeDelta::minutes(1));
        runner::drain(&replica).await.expect("the queue works");
        desk.document(&large).await["state"] == "indexed" && compared(&replica, &held).await.1
    })
    .await;
    assert!(compared(&replica, &held).await.0.agree());
    replica.close().await;
}

#[tokio::test]
async fn documents_that_are_tried_again_and_again_queue_nothing_twice() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let Some(service) = earlier(options).await else {
        return;
    };
    let held = Held::with_documents(&service, 1).await;
    let replica = later(&service, embedder.clone()).await;
    let acme = held.tenant(&service);
    let desk = Chatbot {
        tenant: &acme,
        id: held.chatbot.clone(),
    };
    let log = log_file();
    let small: Vec<(String, String)> = (0..10)
        .map(|number| (format!("small-{number}.md"), format!("Chair{number} is new.")))
        .collect();
    let mut files = vec![("requests.txt", log.as_bytes())];
    files.extend(small.iter().map(|(name, text)| (name.as_str(), text.as_bytes())));
    let reply = desk.upload(&files).await.expect(202).json();
    let deleted = reply["items"][5]["id"].as_str().expect("a document");
    acme.delete(&format!("/api/documents/{deleted}"))
        .await
        .expect(204);

    embedder.set_down(true);
    for _ in 0..6 {
        service.clock.advance(TimeDelta::minutes(2));
        runner::drain(&service.app).await.expect("the queue works");
    }

    let queued = |kind: &str| format!("job where kind = '{kind}' and state = 'queued'");
    assert_eq!(
        count_rows(&service, &queued("index_documents")).await,
        2,
        "all of them, and the large one"
    );
    assert_eq!(
        count_rows(&service, &queued("remove_documents")).await,
        2,
        "what the deletion asked for, and what an attempt may have left"
    );
    embedder.set_down(false);
    until("all are indexed", async || {
        service.clock.advance(TimeDelta::minutes(2));
        runner::drain(&replica).await.expect("the queue works");
        count_rows(&service, "document where state <> 'indexed'").await == 0
            && compared(&replica, &held).await.1
    })
    .await;
    let (findings, _) = compared(&replica, &held).await;
    assert!(findings.agree(), "{findings:?}");
    replica.close().await;
}
