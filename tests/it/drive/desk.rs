//! A chatbot that knows what a Drive holds, and how a test looks at it.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use frontdesk::http::access::Reach;
use frontdesk::id::{DocumentId, SourceId};
use frontdesk::knowledge;
use frontdesk::on;
use serde_json::{Value, json};

use crate::harness::app::{Tenant, TestApp, TestOptions};
use crate::harness::drive::{CLIENT_ID, CLIENT_SECRET, FakeDrive};

/// The service whose Google is `fake`.
pub fn options_for(fake: &FakeDrive) -> TestOptions {
    TestOptions::default()
        .set("google.drive_base_url", fake.base_url())
        .set("google.token_url", fake.token_url())
        .set("google.auth_url", fake.auth_url())
        .set("google.client_id", CLIENT_ID)
        .set("google.client_secret", CLIENT_SECRET)
        .set("server.public_url", "https://desk.example.com")
}

/// A source under test.
pub struct Desk<'a> {
    pub tenant: Tenant<'a>,
    pub chatbot_id: String,
    pub source_id: String,
}

/// A run as the API shows it.
pub struct Run(pub Value);

impl Run {
    pub fn state(&self) -> &str {
        self.0["state"].as_str().expect("a state")
    }

    /// New, changed, unchanged, removed, failed.
    pub fn counts(&self) -> [i64; 5] {
        ["new", "changed", "unchanged", "removed", "failed"]
            .map(|name| self.0[name].as_i64().expect("a count"))
    }

    /// It ended so, having counted new, changed, unchanged, removed and failed.
    #[track_caller]
    pub fn ended(&self, state: &str, counts: [i64; 5]) {
        assert_eq!((self.state(), self.counts()), (state, counts), "{}", self.0);
    }

    #[track_caller]
    pub fn is_done(&self) {
        assert_eq!(self.state(), "done", "{}", self.0);
    }

    /// It failed as a whole, with this code.
    #[track_caller]
    pub fn failed_for(&self, code: &str) {
        let error = self.0["error"]["code"].as_str();
        assert_eq!((self.state(), error), ("failed", Some(code)), "{}", self.0);
    }

    /// The codes of what could not be read.
    pub fn failures(&self) -> Vec<&str> {
        let failures = self.0["failures"].as_array().expect("failures");
        failures
            .iter()
            .map(|failure| failure["code"].as_str().expect("a code"))
            .collect()
    }
}

impl<'a> Desk<'a> {
    /// A source that reads `folder` with a service account, and its first run.
    pub async fn of_folder(service: &'a TestApp, fake: &FakeDrive, folder: &str) -> (Self, Run) {
        let drive = json!({ "folder_id": folder, "credentials": fake.service_account(), "shrink_limit_percent": 100 });
        Self::with(service, drive).await
    }

    pub async fn with(service: &'a TestApp, drive: Value) -> (Self, Run) {
        let tenant = service.tenant("acme").await;
        Self::of(tenant, drive).await
    }

    pub async fn of(tenant: Tenant<'a>, drive: Value) -> (Self, Run) {
        let chatbot_id = tenant.chatbot("Desk").await.id;
        let body = json!({ "kind": "drive", "drive": drive });
        let path = format!("/api/chatbots/{chatbot_id}/sources");
        let source_id = tenant.post(&path, body).await.expect(202).id();
        let desk = Self {
            tenant,
            chatbot_id,
            source_id,
        };
        let run = desk.finish().await;
        (desk, run)
    }

    /// Reads the source again.
    pub async fn sync(&self) -> Run {
        self.sync_as(json!({})).await
    }

    pub async fn sync_as(&self, wanted: Value) -> Run {
        let path = format!("/api/sources/{}/sync", self.source_id);
        self.tenant.post(&path, wanted).await.expect(202);
        self.finish().await
    }

    /// Works until the newest run has ended.
    pub async fn finish(&self) -> Run {
        for _ in 0..60 {
            self.tenant.service.drain_jobs().await;
            let path = format!("/api/sources/{}/runs?limit=1", self.source_id);
            let runs = self.tenant.get(&path).await.expect(200).json();
            let id = runs["items"][0]["id"].as_str().expect("a run").to_owned();
            if runs["items"][0]["state"] != "running" {
                self.tenant.service.drain_jobs().await;
                let path = format!("/api/sources/{}/runs/{id}", self.source_id);
                return Run(self.tenant.get(&path).await.expect(200).json());
            }
            self.tenant.service.clock.advance(TimeDelta::minutes(1));
        }
        panic!("the run does not end");
    }

    /// Id and text of all documents, each of which is indexed.
    pub async fn knowledge(&self) -> BTreeMap<String, String> {
        let app = &self.tenant.service.app;
        let source_id: SourceId = self.source_id.parse().expect("an id");
        let mut conn = app.db.read(self.tenant.id).await.expect("a connection");
        let rows: Vec<(String, DocumentId, String)> = on!(conn, c => sqlx::query_as(
            "select external_id, id, state from document where tenant_id = $1 and source_id = $2",
        ).bind(self.tenant.id).bind(source_id).fetch_all(c).await)
        .expect("documents");
        drop(conn);
        let mut knowledge = BTreeMap::new();
        for (file_id, id, state) in rows {
            assert_eq!(state, "indexed", "{file_id}");
            let text = knowledge::document_text(app, Reach::whole(self.tenant.id), id, 0)
                .await
                .expect("a text");
            knowledge.insert(file_id, text.text.trim().to_owned());
        }
        knowledge
    }

    pub async fn source(&self) -> Value {
        let path = format!("/api/sources/{}", self.source_id);
        self.tenant.get(&path).await.expect(200).json()
    }

    /// The texts of the passages that a search finds.
    pub async fn found(&self, query: &str) -> String {
        let path = format!("/api/chatbots/{}/search", self.chatbot_id);
        let reply = self
            .tenant
            .post(&path, json!({ "query": query }))
            .await
            .expect(200);
        let found = reply.json();
        let texts = found["items"]
            .as_array()
            .expect("items")
            .iter()
            .filter_map(|item| item["text"].as_str());
        texts.collect::<Vec<_>>().join("\n")
    }
}
