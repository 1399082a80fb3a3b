//! `kill -9` of the real server: what was answered with success is there, and what was begun is finished, once.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use frontdesk::db::{DatabaseUrl, Db, Scope};
use frontdesk::on;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use retrieval::index::{EmbeddedIndex, EmbeddedOptions, Index as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

use crate::harness::app::{Reply, engine};
use crate::harness::databases::{create_postgres_database, postgres_server};
use crate::harness::openai::{Script, ScriptedModel};
use crate::harness::work::until;

const PATIENCE: Duration = Duration::from_secs(120);

/// Documents of one import.
const DOCUMENTS: usize = 60;

/// A server that may die at any time, on data that stays.
struct Mortal {
    _folder: TempDir,
    data: std::path::PathBuf,
    database_url: Option<String>,
    /// More settings of its own.
    settings: Vec<String>,
    http: reqwest::Client,
    child: Child,
    address: String,
    key: String,
}

impl Mortal {
    async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test talks to its own server on loopback"
    )]
    async fn start_with(settings: Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        let database_url = match engine().as_str() {
            "postgres" => Some(create_postgres_database(&postgres_server().expect("a server")).await),
            _ => None,
        };
        let (child, address, key) = spawn(&data, database_url.as_deref(), &settings).await;
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self {
            _folder: folder,
            data,
            database_url,
            settings,
            http,
            child,
            address,
            key: key.expect("the first start shows a key"),
        }
    }

    /// Ends the server as a power cut would end it, and starts it again.
    async fn die_and_rise(&mut self) {
        self.die().await;
        let (child, address, _) = spawn(&self.data, self.database_url.as_deref(), &self.settings).await;
        (self.child, self.address) = (child, address);
    }

    async fn die(&mut self) {
        self.child.kill().await.expect("ours to kill");
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.address))
            .bearer_auth(&self.key)
    }

    async fn get(&self, path: &str) -> Value {
        Reply::read(self.request(Method::GET, path).send().await.expect("an answer"))
            .await
            .expect(200)
            .json()
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        Reply::read(
            self.request(Method::POST, path)
                .json(&body)
                .send()
                .await
                .expect("an answer"),
        )
        .await
    }

    async fn chatbot(&self) -> String {
        self.post("/api/chatbots", json!({ "name": "Desk" }))
            .await
            .expect(201)
            .id()
    }

    async fn upload(&self, chatbot: &str, files: Vec<(String, String)>) -> Value {
        let form = files.into_iter().fold(Form::new(), |form, (name, text)| {
            form.part("file", Part::text(text).file_name(name))
        });
        let request = self
            .request(Method::POST, &format!("/api/chatbots/{chatbot}/documents"))
            .multipart(form);
        Reply::read(request.send().await.expect("an answer"))
            .await
            .expect(202)
            .json()
    }

    /// All documents of a chatbot.
    async fn documents(&self, chatbot: &str) -> Vec<Value> {
        self.get(&format!("/api/chatbots/{chatbot}/documents?limit=100"))
            .await["items"]
            .as_array()
            .expect("items")
            .clone()
    }

    async fn count(&self, chatbot: &str, state: &str) -> usize {
        self.documents(chatbot)
            .await
            .iter()
            .filter(|document| document["state"] == state)
            .count()
    }
}

async fn spawn(
    data: &Path,
    database_url: Option<&str>,
    settings: &[String],
) -> (Child, String, Option<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frontdesk"));
    command
        .env_clear()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data);
    for setting in [
        "embedding.model_dir=/nonexistent",
        "jobs.lease_s=1",
        "jobs.poll_ms=50",
        "jobs.workers=3",
        "index.shards=1",
    ] {
        command.args(["--set", setting]);
    }
    for setting in settings {
        command.args(["--set", setting]);
    }
    if let Some(url) = database_url {
        command.args(["--set", &format!("database.url={url}")]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut key = None;
    loop {
        let line = timeout(PATIENCE, lines.next_line())
            .await
            .expect("a line comes")
            .expect("readable")
            .expect("the server lives");
        if let Some(shown) = line.strip_prefix("first API key (shown once): ") {
            key = Some(shown.to_owned());
        } else if let Some(address) = line.strip_prefix("listening on http://") {
            return (child, address.to_owned(), key);
        }
    }
}

fn page(number: usize) -> (String, String) {
    let sections: String = (0..6)
        .map(|section| {
            format!(
                "## Shelf {number}x{section}\n\n{}\n\n",
                format!("Item{number}x{section} lies here. ").repeat(50)
            )
        })
        .collect();
    (format!("shelf-{number:02}.md"), sections)
}

#[tokio::test]
async fn an_import_that_is_killed_again_and_again_ends_with_every_document_indexed_once() {
    let mut server = Mortal::start().await;
    let chatbot = server.chatbot().await;

    for batch in 0..DOCUMENTS / 20 {
        let taken = server
            .upload(&chatbot, (batch * 20..(batch + 1) * 20).map(page).collect())
            .await;
        assert_eq!(taken["items"].as_array().map(Vec::len), Some(20));
        server.die_and_rise().await;
        // Some more are done, then it dies again, in the middle of others.
        let done = server.count(&chatbot, "indexed").await;
        until("the import goes on", async || {
            server.count(&chatbot, "indexed").await > done
        })
        .await;
        server.die_and_rise().await;
    }
    until("everything is indexed", async || {
        server.count(&chatbot, "indexed").await == DOCUMENTS
    })
    .await;
    until("no job is left", async || {
        server.get("/api/jobs?state=running").await["items"] == json!([])
            && server.get("/api/jobs?state=queued").await["items"] == json!([])
    })
    .await;

    let documents = server.documents(&chatbot).await;
    let mut names: Vec<&str> = documents
        .iter()
        .filter_map(|document| document["file_name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        (0..DOCUMENTS).map(|number| page(number).0).collect::<Vec<_>>()
    );
    for number in [0, 31, 59] {
        let found = server
            .post(
                &format!("/api/chatbots/{chatbot}/search"),
                json!({ "query": format!("Item{number}x3") }),
            )
            .await
            .expect(200)
            .json();
        assert!(
            found["items"][0]["text"]
                .as_str()
                .is_some_and(|text| text.contains(&format!("Item{number}x3 "))),
            "{found}"
        );
    }
    let original = server
        .request(
            Method::GET,
            &format!(
                "/api/documents/{}/file",
                documents[0]["id"].as_str().expect("an id")
            ),
        )
        .send()
        .await
        .expect("an answer");
    assert_eq!(original.text().await.expect("text"), page(DOCUMENTS - 1).1);

    server.die().await;
    check_stores(
        &server,
        documents
            .iter()
            .map(|document| document["chunks"].as_i64().expect("a count"))
            .sum(),
    )
    .await;
}

/// Opens what the dead server left: rows and index hold the same chunks, and as many as the documents said.
async fn check_stores(server: &Mortal, expected: i64) {
    let url = server.database_url.clone().map_or_else(
        || DatabaseUrl::Sqlite(server.data.join("frontdesk.db")),
        DatabaseUrl::Postgres,
    );
    let db = Db::open(&url, 2).await.expect("the database opens");
    let mut conn = db.read(Scope::Operator).await.expect("a connection");
    let rows: i64 =
        on!(conn, c => sqlx::query_scalar("select count(*) from chunk").fetch_one(c).await).expect("a count");
    let tenant: Uuid =
        on!(conn, c => sqlx::query_scalar("select id from tenant").fetch_one(c).await).expect("one tenant");
    let options = EmbeddedOptions {
        dir: server.data.join("index"),
        model_id: None,
        dimension: None,
        shards: 1,
    };
    let index = EmbeddedIndex::open(options).expect("the index opens");
    let indexed = index
        .count(retrieval::TenantId(tenant))
        .await
        .expect("the index answers");
    assert_eq!(
        (rows, i64::try_from(indexed).expect("a small number")),
        (expected, expected)
    );
    index.close().await.expect("it closes");
}

#[tokio::test]
async fn what_was_answered_with_success_survives_a_kill_right_after() {
    let mut server = Mortal::start().await;
    let chatbot = server.chatbot().await;
    server.die_and_rise().await;

    let taken = server
        .upload(
            &chatbot,
            vec![(
                "oak.md".to_owned(),
                "Oak tables are oiled twice a year.".to_owned(),
            )],
        )
        .await;
    server.die_and_rise().await;
    let id = taken["items"][0]["id"].as_str().expect("an id");
    until("it is indexed", async || {
        server.get(&format!("/api/documents/{id}")).await["state"] == "indexed"
    })
    .await;
    server.die_and_rise().await;

    let answer = server
        .post(
            "/api/chat/message",
            json!({ "chatbot_id": chatbot, "message": "When are oak tables oiled?" }),
        )
        .await
        .expect(200)
        .json();
    server.die_and_rise().await;
    assert!(
        answer["answer"]
            .as_str()
            .is_some_and(|text| text.contains("twice a year")),
        "{answer}"
    );
    let conversation = server
        .get(&format!(
            "/api/conversations/{}",
            answer["conversation_id"].as_str().expect("an id")
        ))
        .await;
    assert_eq!(
        conversation["messages"][0]["content"],
        "When are oak tables oiled?"
    );
    assert_eq!(conversation["messages"][1]["content"], answer["answer"]);
    assert_eq!(conversation["messages"][1]["state"], "complete");
    assert_eq!(conversation["messages"][1]["citations"], answer["citations"]);

    let deleted = server
        .request(Method::DELETE, &format!("/api/documents/{id}"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(deleted.status().as_u16(), 204);
    server.die_and_rise().await;
    let found = server
        .post(
            &format!("/api/chatbots/{chatbot}/search"),
            json!({ "query": "oak tables" }),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(found["items"], json!([]));
}

#[tokio::test]
async fn an_answer_that_a_kill_cut_off_is_kept_and_told_apart_from_a_whole_one() {
    let model = ScriptedModel::start().await;
    let mut server = Mortal::start_with(vec![
        format!("llm.base_url={}", model.base_url()),
        "llm.model=scripted".to_owned(),
    ])
    .await;
    let chatbot = server.chatbot().await;
    let oak = (
        "oak.md".to_owned(),
        "Oak tables are oiled twice a year.".to_owned(),
    );
    let taken = server.upload(&chatbot, vec![oak]).await;
    let id = taken["items"][0]["id"].as_str().expect("an id");
    until("it is indexed", async || {
        server.get(&format!("/api/documents/{id}")).await["state"] == "indexed"
    })
    .await;
    model.push(Script::HangAfter("Twice a"));
    let question = json!({ "chatbot_id": chatbot, "message": "When are oak tables oiled?", "stream": true });
    let mut response = server
        .request(Method::POST, "/api/chat/message")
        .json(&question)
        .send()
        .await
        .expect("an answer");
    response.chunk().await.expect("the stream begins");

    server.die_and_rise().await;

    let listed = server.get("/api/conversations").await["items"][0].clone();
    assert_eq!(listed["message_count"], 2);
    let path = format!("/api/conversations/{}", listed["id"].as_str().expect("an id"));
    let answer = server.get(&path).await["messages"][1].clone();
    // Several processes may share a PostgreSQL database, so that only time tells there who is dead.
    let expected = if engine() == "postgres" {
        (json!("writing"), Value::Null)
    } else {
        (json!("failed"), json!("interrupted"))
    };
    assert_eq!((answer["state"].clone(), answer["error_code"].clone()), expected);
}
