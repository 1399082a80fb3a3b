//! A chatbot that knows what a source says, and how a test looks at its runs.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use frontdesk::http::input::PageRequest;
use frontdesk::id::{DocumentId, SourceId, TenantId};
use frontdesk::knowledge::sources::Secrets;
use frontdesk::knowledge::sync::{self, Cause, RunState, SyncRun, Wanted};
use frontdesk::on;
use serde_json::{Value, json};
use sqlx::types::Json;
use uuid::Uuid;

use super::site::Site;
use crate::harness::app::{TestApp, TestOptions};

/// The service that may read `site`.
pub async fn service_for(site: &Site) -> TestApp {
    options_for(site).start().await
}

pub fn options_for(site: &Site) -> TestOptions {
    TestOptions::default()
        .set("outbound.allow", site.address)
        .set("crawl.per_host_concurrency", 16)
}

/// A source under test.
pub struct Desk<'a> {
    pub service: &'a TestApp,
    pub tenant_id: TenantId,
    pub key: String,
    pub chatbot_id: String,
    pub source_id: SourceId,
}

/// What a website's settings are unless a test says otherwise.
pub fn website(site: &Site) -> Value {
    json!({
        "url": site.url("/"), "max_pages": 100, "max_depth": 10, "include": [], "exclude": [], "subdomains": false,
        "keep_query": true, "shrink_limit_percent": 50,
        "fetching": { "header_names": [], "basic_auth_user": null, "render": false, "delay_ms": null },
    })
}

impl<'a> Desk<'a> {
    pub async fn of_website(service: &'a TestApp, site: &Site) -> Self {
        Self::with(service, "website", website(site)).await
    }

    pub async fn with(service: &'a TestApp, kind: &str, settings: Value) -> Self {
        let tenant = service.tenant("acme").await;
        let chatbot_id = tenant.chatbot("Desk").await.id;
        let (source_id, now) = (SourceId::new(), service.app.clock.now());
        let chatbot: Uuid = chatbot_id.parse().expect("an id");
        let mut write = service.app.db.write(tenant.id).await.expect("a transaction");
        on!(write, c => sqlx::query(
            "insert into source (id, tenant_id, chatbot_id, kind, name, settings, state, created_at, updated_at)
             values ($1, $2, $3, $4, 'Site', $5, 'idle', $6, $6)",
        ).bind(source_id).bind(tenant.id).bind(chatbot).bind(kind).bind(Json(&settings)).bind(now).execute(c).await.map(drop))
        .expect("the source is stored");
        write.commit().await.expect("the source is stored");
        Self {
            service,
            tenant_id: tenant.id,
            key: tenant.key,
            chatbot_id,
            source_id,
        }
    }

    pub async fn change_settings(&self, settings: Value) {
        let mut write = self
            .service
            .app
            .db
            .write(self.tenant_id)
            .await
            .expect("a transaction");
        on!(write, c => sqlx::query("update source set settings = $3 where tenant_id = $1 and id = $2")
            .bind(self.tenant_id).bind(self.source_id).bind(Json(&settings)).execute(c).await.map(drop))
        .expect("changed");
        write.commit().await.expect("changed");
    }

    /// Gives the source headers and a password.
    pub async fn seal_headers(&self, headers: &[(&str, &str)], password: &str) {
        let secrets = Secrets {
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            password: Some(password.to_owned()),
            ..Secrets::default()
        };
        let app = &self.service.app;
        let sealed = secrets
            .seal(&app.keyring, self.tenant_id, self.source_id)
            .expect("sealed");
        let mut write = app.db.write(self.tenant_id).await.expect("a transaction");
        on!(write, c => sqlx::query("update source set sealed = $3 where tenant_id = $1 and id = $2")
            .bind(self.tenant_id).bind(self.source_id).bind(sealed).execute(c).await.map(drop))
        .expect("sealed");
        write.commit().await.expect("sealed");
    }

    /// Starts a run without carrying it out.
    pub async fn request(&self, wanted: impl Into<Wanted>) -> SyncRun {
        let app = &self.service.app;
        let mut write = app.db.write(self.tenant_id).await.expect("a transaction");
        let run = sync::request(app, &mut write, self.tenant_id, self.source_id, wanted)
            .await
            .expect("a run begins");
        write.commit().await.expect("the run is stored");
        run
    }

    /// Carries out a run to its end, pauses between attempts included.
    pub async fn sync(&self) -> SyncRun {
        self.sync_as(Cause::Request).await
    }

    pub async fn sync_as(&self, wanted: impl Into<Wanted>) -> SyncRun {
        let run = self.request(wanted).await;
        self.finish(run).await
    }

    /// Works until the run has ended.
    pub async fn finish(&self, run: SyncRun) -> SyncRun {
        for _ in 0..50 {
            self.service.drain_jobs().await;
            let run = self.run(&run).await;
            if run.state != RunState::Running {
                self.service.drain_jobs().await;
                return run;
            }
            self.service.clock.advance(TimeDelta::minutes(1));
        }
        panic!("the run does not end: {:?}", self.run(&run).await);
    }

    pub async fn run(&self, run: &SyncRun) -> SyncRun {
        let mut conn = self
            .service
            .app
            .db
            .read(self.tenant_id)
            .await
            .expect("a connection");
        sync::get_run(&mut conn, self.tenant_id, self.source_id, run.id)
            .await
            .expect("the run")
    }

    pub async fn source_state(&self) -> String {
        let mut conn = self
            .service
            .app
            .db
            .read(self.tenant_id)
            .await
            .expect("a connection");
        on!(conn, c => sqlx::query_scalar("select state from source where tenant_id = $1 and id = $2")
            .bind(self.tenant_id).bind(self.source_id).fetch_one(c).await)
        .expect("the source")
    }

    /// Paths that could not be read, with the reason's code.
    pub async fn failures(&self, run: &SyncRun) -> Vec<(String, String)> {
        let mut conn = self
            .service
            .app
            .db
            .read(self.tenant_id)
            .await
            .expect("a connection");
        let page = PageRequest {
            limit: 100,
            before: Uuid::max(),
        };
        let mut failures: Vec<(String, String)> =
            sync::list_failures(&mut conn, self.tenant_id, run.id, page)
                .await
                .expect("failures")
                .into_iter()
                .map(|failure| (path_of(&failure.url), failure.code))
                .collect();
        failures.sort();
        failures
    }

    /// Documents by the path of their address: id and state.
    pub async fn documents(&self) -> BTreeMap<String, (DocumentId, String)> {
        let mut conn = self
            .service
            .app
            .db
            .read(self.tenant_id)
            .await
            .expect("a connection");
        let rows: Vec<(String, DocumentId, String)> = on!(conn, c => sqlx::query_as(
            "select external_id, id, state from document where tenant_id = $1 and source_id = $2",
        ).bind(self.tenant_id).bind(self.source_id).fetch_all(c).await)
        .expect("documents");
        rows.into_iter()
            .map(|(address, id, state)| (path_of(&address), (id, state)))
            .collect()
    }

    /// The paths of all documents that are indexed.
    pub async fn paths(&self) -> Vec<String> {
        let documents = self.documents().await;
        assert!(
            documents.values().all(|(_, state)| state == "indexed"),
            "{documents:?}"
        );
        documents.into_keys().collect()
    }

    /// The texts of the passages that a search finds.
    pub async fn found(&self, query: &str) -> String {
        let path = format!("/api/chatbots/{}/search", self.chatbot_id);
        let reply = self
            .service
            .send(
                reqwest::Method::POST,
                &path,
                Some(&self.key),
                Some(json!({ "query": query })),
            )
            .await
            .expect(200);
        let items = reply.json()["items"].clone();
        let texts: Vec<&str> = items
            .as_array()
            .expect("items")
            .iter()
            .filter_map(|item| item["text"].as_str())
            .collect();
        texts.join("\n")
    }
}

/// What a run counted: new, changed, unchanged, removed, failed.
pub fn counts(run: &SyncRun) -> [i64; 5] {
    [
        run.new_count,
        run.changed_count,
        run.unchanged_count,
        run.removed_count,
        run.failed_count,
    ]
}

fn path_of(url: &str) -> String {
    url.parse::<url::Url>().map_or_else(
        |_| url.to_owned(),
        |url| url[url::Position::BeforePath..].to_owned(),
    )
}
