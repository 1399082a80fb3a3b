//! A generated site with every trap of real ones, crawled whole: what a right crawl holds, what a further one costs, and
//! what a kill at any point leaves.

mod held;
mod kills;
mod refresh;

use std::collections::BTreeMap;
use std::time::Duration;

use fixture_site::{Options, Site};
use frontdesk::id::DocumentId;
use frontdesk::on;
use serde_json::{Value, json};

use crate::harness::app::{TestApp, TestOptions};
use crate::sync::desk::Desk;

/// Requests to the site at once, at most.
const AT_ONCE: usize = 8;

async fn site(pages: usize) -> Site {
    let options = Options {
        pages,
        slow: Duration::from_millis(20),
        ..Options::default()
    };
    Site::start(options).await.expect("a free port")
}

fn options_for(site: &Site) -> TestOptions {
    TestOptions::default()
        .set("outbound.allow", site.address)
        .set("crawl.per_host_concurrency", AT_ONCE)
}

/// A source that is the whole site.
fn settings(site: &Site) -> Value {
    json!({
        "url": site.url("/"), "max_pages": 10_000, "max_depth": 10, "include": [], "exclude": [], "subdomains": false,
        "keep_query": true, "shrink_limit_percent": 50,
        "fetching": { "header_names": [], "basic_auth_user": null, "render": false, "delay_ms": null },
    })
}

async fn desk_for<'a>(service: &'a TestApp, site: &Site) -> Desk<'a> {
    Desk::with(service, "website", settings(site)).await
}

/// The texts of all chunks, in order, by the path of their document.
async fn chunks(desk: &Desk<'_>) -> BTreeMap<String, Vec<String>> {
    let documents = desk.documents().await;
    let mut by_id = chunk_rows(desk).await;
    documents
        .into_iter()
        .map(|(path, (id, _))| (path, by_id.remove(&id).unwrap_or_default()))
        .collect()
}

async fn chunk_rows(desk: &Desk<'_>) -> BTreeMap<DocumentId, Vec<String>> {
    let db = &desk.service.app.db;
    let mut conn = db.read(desk.tenant_id).await.expect("a connection");
    let rows: Vec<(DocumentId, String)> = on!(conn, c => sqlx::query_as(
        "select document_id, text from chunk where tenant_id = $1 order by document_id, position",
    ).bind(desk.tenant_id).fetch_all(c).await)
    .expect("chunks");
    let mut by_id: BTreeMap<DocumentId, Vec<String>> = BTreeMap::new();
    for (id, text) in rows {
        by_id.entry(id).or_default().push(text);
    }
    by_id
}
