//! `kill -9` of the real server while it reads a Drive: in the end the knowledge is what the Drive shows.

use std::collections::BTreeMap;

use frontdesk::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::harness::drive::FakeDrive;
use crate::harness::mortal::Mortal;
use crate::harness::work::until;

/// A server that reads a folder of `fake`.
struct Reader {
    server: Mortal,
    chatbot: String,
    source: String,
}

impl Reader {
    async fn start(fake: &FakeDrive, folder: &str) -> Self {
        let server = Mortal::start_with(vec![
            format!("google.drive_base_url={}", fake.base_url()),
            format!("google.token_url={}", fake.token_url()),
        ])
        .await;
        let chatbot = server.chatbot().await;
        let drive = json!({ "folder_id": folder, "credentials": fake.service_account(), "shrink_limit_percent": 100 });
        let path = format!("/api/chatbots/{chatbot}/sources");
        let body = json!({ "kind": "drive", "drive": drive });
        let source = server.post(&path, body).await.expect(202).id();
        Self {
            server,
            chatbot,
            source,
        }
    }

    async fn run(&self) -> Value {
        let path = format!("/api/sources/{}/runs?limit=1", self.source);
        self.server.get(&path).await["items"][0].clone()
    }

    /// Kills the server once the Drive was asked for this so often.
    async fn die_after(&mut self, fake: &FakeDrive, kind: &str, requests: usize) {
        until("the Drive is asked", async || fake.requests(kind) >= requests).await;
        assert_eq!(self.run().await["state"], "running", "{kind} {requests}");
        self.server.die_and_rise().await;
    }

    async fn finish(&self) -> Value {
        until("the run ends", async || self.run().await["state"] != "running").await;
        self.run().await
    }

    /// Id and text of all documents, each of which is indexed.
    async fn knowledge(&self) -> BTreeMap<String, String> {
        let mut knowledge = BTreeMap::new();
        for document in self.server.documents(&self.chatbot).await {
            assert_eq!(document["state"], "indexed", "{document}");
            let text = |value: &Value| value.as_str().expect("text").trim().to_owned();
            let shown = self
                .server
                .get(&format!("/api/documents/{}", text(&document["id"])))
                .await;
            knowledge.insert(text(&document["external_id"]), text(&shown["text"]));
        }
        knowledge
    }
}

#[tokio::test]
async fn a_drive_that_is_read_through_kills_is_known_as_it_is() {
    let fake = FakeDrive::start().await;
    fake.advance(SystemClock.now().timestamp() - fake.now());
    let root = fake.folder("Root", &[]);
    let mut files = Vec::new();
    for n in 0..12 {
        let folder = fake.folder(&format!("Folder {n}"), &[&root]);
        for m in 0..5 {
            files.push(fake.text(
                &format!("{n}-{m}.txt"),
                &[&folder],
                &format!("Words {n} and {m}."),
            ));
        }
    }
    let mut reader = Reader::start(&fake, &root).await;
    reader.die_after(&fake, "list", 4).await;
    reader.die_after(&fake, "media", 5).await;
    reader.die_after(&fake, "media", 20).await;
    let first = reader.finish().await;
    assert_eq!(
        (&first["state"], &first["new"]),
        (&json!("done"), &json!(60)),
        "{first}"
    );
    assert_eq!(reader.knowledge().await, fake.view(&[&root]));

    files
        .iter()
        .step_by(3)
        .for_each(|id| fake.write(id, "Changed words."));
    files.iter().skip(1).step_by(6).for_each(|id| fake.trash(id));
    fake.forget_requests();
    reader.server.veto("delete", "document").await;
    let path = format!("/api/sources/{}/sync", reader.source);
    reader.server.post(&path, json!({})).await.expect(202);
    reader.die_after(&fake, "media", 3).await;
    reader.server.wait_vetoed("sync_source").await;
    assert_eq!(reader.run().await["phase"], "removing");
    reader.server.lift_veto("document").await;
    reader.server.die_and_rise().await;
    let second = reader.finish().await;

    let counts = ["state", "new", "changed", "unchanged", "removed"].map(|name| second[name].clone());
    assert_eq!(
        counts,
        [json!("done"), json!(0), json!(20), json!(30), json!(10)],
        "{second}"
    );
    assert_eq!(reader.knowledge().await, fake.view(&[&root]));
}
