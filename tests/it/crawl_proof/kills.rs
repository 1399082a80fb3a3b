//! `kill -9` of the real server at twenty points of two crawls: each ends as it does undisturbed.

use std::collections::BTreeMap;
use std::time::Duration;

use fixture_site::{Options, Site};
use frontdesk::db::Scope;
use frontdesk::on;
use serde_json::{Value, json};

use crate::harness::mortal::Mortal;
use crate::harness::work::until;

/// When the server is killed in its first crawl.
const KILLS_OF_THE_FIRST: &[Point] = &[
    Point::Asked(1),
    Point::Asked(3),
    Point::Asked(18),
    Point::Asked(8),
    Point::Asked(14),
    Point::Asked(5),
    Point::Asked(16),
    Point::Asked(10),
    Point::In(&INDEXING),
];

/// When it is killed in its second crawl, of the site as it has become.
const KILLS_OF_THE_SECOND: &[Point] = &[
    Point::In(&LISTING),
    Point::Asked(1),
    Point::Asked(20),
    Point::Asked(10),
    Point::Asked(16),
    Point::Asked(6),
    Point::Asked(12),
    Point::In(&INDEXING),
    Point::In(&REMOVING),
    Point::In(&REMOVING),
    Point::Ended,
];

/// A phase that can be held, since its statements are known.
#[derive(Debug)]
struct Held {
    phase: &'static str,
    statement: &'static str,
    table: &'static str,
    /// The kind of job that carries these statements out.
    job: &'static str,
}

static LISTING: Held = Held {
    phase: "listing",
    statement: "insert",
    table: "source_item",
    job: "sync_source",
};
static INDEXING: Held = Held {
    phase: "indexing",
    statement: "insert",
    table: "chunk",
    job: "index_documents",
};
static REMOVING: Held = Held {
    phase: "removing",
    statement: "delete",
    table: "document",
    job: "sync_source",
};

/// A point in a run.
#[derive(Clone, Copy, Debug)]
enum Point {
    /// After so many further requests.
    Asked(usize),
    /// In the midst of a phase.
    In(&'static Held),
    /// As soon as it has ended.
    Ended,
}

/// What a crawl leaves, whatever happened on the way.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// State and counts of the run.
    run: BTreeMap<&'static str, Value>,
    /// Of each document: state, title and the texts of its chunks.
    documents: BTreeMap<String, (String, String, Vec<String>)>,
    /// What each address turned out to be.
    items: BTreeMap<String, String>,
}

/// A server that crawls the site.
struct Crawler<'a> {
    site: &'a Site,
    server: Mortal,
    source: String,
}

impl<'a> Crawler<'a> {
    async fn start(site: &'a Site) -> Self {
        let server = Mortal::start_with(vec![
            format!("outbound.allow={}", site.address),
            "crawl.per_host_concurrency=8".to_owned(),
        ])
        .await;
        let chatbot = server.chatbot().await;
        let body = json!({ "chatbot_id": chatbot, "url": site.url("/"), "max_pages": 1000 });
        let begun = server.post("/api/chatbots/crawl", body).await.expect(202).json();
        Self {
            site,
            server,
            source: begun["source"]["id"].as_str().expect("an id").to_owned(),
        }
    }

    async fn run(&self) -> Value {
        let runs = self
            .server
            .get(&format!("/api/sources/{}/runs?limit=1", self.source))
            .await;
        runs["items"][0].clone()
    }

    async fn is_running(&self) -> bool {
        self.run().await["state"] == "running"
    }

    /// Kills the server at each of these points, and lets the run come to its end. How many of the points lay within it.
    async fn finish(&mut self, kills: &[Point]) -> usize {
        let mut hit = 0;
        for (index, point) in kills.iter().enumerate() {
            // The first phase is over too soon to be held: it was held before it began.
            let is_held = index == 0 && matches!(point, Point::In(_));
            hit += usize::from(self.wait_for(*point, is_held).await);
            self.server.die_and_rise().await;
        }
        until("the run ends", async || !self.is_running().await).await;
        until("no job is left", async || {
            // One that is claimed between two looks is in the third.
            for state in ["queued", "running", "queued"] {
                if self.server.get(&format!("/api/jobs?state={state}")).await["items"] != json!([]) {
                    return false;
                }
            }
            true
        })
        .await;
        hit
    }

    /// Waits for a point of the run; false when the run had ended before.
    async fn wait_for(&self, point: Point, is_held: bool) -> bool {
        let asked = self.site.counts().requests;
        match point {
            Point::Asked(count) => {
                // Asking the server for its state would slow the run: only now and then.
                for look in 1.. {
                    if self.site.counts().requests >= asked + count {
                        return self.is_running().await;
                    }
                    if look % 200 == 0 && !self.is_running().await {
                        return false;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                unreachable!("the loop has no end")
            }
            Point::In(held) => {
                if !is_held {
                    self.server.veto(held.statement, held.table).await;
                }
                until("the phase is held", async || {
                    let run = self.run().await;
                    run["state"] != "running" || run["phase"] == held.phase
                })
                .await;
                self.server.wait_vetoed(held.job).await;
                let is_running = self.is_running().await;
                // The next attempt is seconds away.
                self.server.lift_veto(held.table).await;
                is_running
            }
            Point::Ended => {
                until("the run ends", async || !self.is_running().await).await;
                true
            }
        }
    }

    async fn sync_again(&self) {
        let path = format!("/api/sources/{}/sync", self.source);
        self.server.post(&path, json!({})).await.expect(202);
    }

    /// What the run came to, and what stands in the database.
    async fn outcome(&self) -> Outcome {
        let run = self.run().await;
        let told = [
            "state",
            "new",
            "changed",
            "unchanged",
            "removed",
            "failed",
            "held",
            "notes",
        ];
        let db = self.server.database().await;
        let mut conn = db.read(Scope::Operator).await.expect("a connection");
        let chunks: Vec<(String, String, String, Option<String>)> = on!(conn, c => sqlx::query_as(
            "select d.external_id, d.state, d.title, c.text
               from document d
               left join chunk c on c.document_id = d.id
              order by d.external_id, c.position",
        ).fetch_all(c).await)
        .expect("documents");
        let items: Vec<(String, String)> =
            on!(conn, c => sqlx::query_as("select item_key, state from source_item").fetch_all(c).await)
                .expect("items");
        let mut documents: BTreeMap<String, (String, String, Vec<String>)> = BTreeMap::new();
        for (address, state, title, text) in chunks {
            let document = documents.entry(address).or_insert((state, title, Vec::new()));
            document.2.extend(text);
        }
        Outcome {
            run: told.into_iter().map(|name| (name, run[name].clone())).collect(),
            documents,
            items: items.into_iter().collect(),
        }
    }
}

/// What becomes of the site between the two crawls.
fn alter(site: &Site) {
    let articles: Vec<usize> = site.plan().all_articles().collect();
    for article in articles.iter().skip(30).step_by(7).take(6) {
        site.change(*article);
    }
    for article in articles.iter().skip(34).step_by(11).take(4) {
        site.remove(*article);
    }
}

async fn fixture() -> Site {
    let options = Options {
        pages: 150,
        latency: Duration::from_millis(4),
        ..Options::default()
    };
    Site::start(options).await.expect("a free port")
}

#[tokio::test]
async fn crawls_that_are_killed_at_twenty_points_end_like_undisturbed_ones() {
    let site = fixture().await;
    let mut undisturbed = Crawler::start(&site).await;
    undisturbed.finish(&[]).await;
    let first = undisturbed.outcome().await;
    let expected = site.manifest().expected.len();
    alter(&site);
    undisturbed.sync_again().await;
    undisturbed.finish(&[]).await;
    let second = undisturbed.outcome().await;
    assert!(first.documents.len() > 150, "{:?}", first.run);
    let gone = expected - site.manifest().expected.len();
    assert!(gone >= 4);
    assert_eq!(
        (&second.run["changed"], &second.run["removed"]),
        (&json!(6), &json!(gone)),
        "{:?}",
        second.run
    );
    drop(undisturbed);
    site.restore();

    let mut killed = Crawler::start(&site).await;
    let mut hit = killed.finish(KILLS_OF_THE_FIRST).await;
    assert_eq!(killed.outcome().await, first);
    alter(&site);
    killed.server.veto(LISTING.statement, LISTING.table).await;
    killed.sync_again().await;
    hit += killed.finish(KILLS_OF_THE_SECOND).await;
    assert_eq!(killed.outcome().await, second);

    assert_eq!(hit, 20, "every kill met a run");
    killed.server.die().await;
    let chunks = second
        .documents
        .values()
        .map(|(_, _, chunks)| chunks.len())
        .sum::<usize>();
    killed
        .server
        .check_stores(i64::try_from(chunks).expect("few"))
        .await;
}
