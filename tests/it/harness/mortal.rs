//! The real server as a process that may die at any time, on data that stays.

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

use super::app::{Reply, engine};
use super::databases::{create_postgres_database, postgres_server, run_as_owner};
use super::work::until;

const PATIENCE: Duration = Duration::from_secs(120);

/// A server that may die at any time, on data that stays.
pub struct Mortal {
    _folder: TempDir,
    pub data: std::path::PathBuf,
    database_url: Option<String>,
    /// More settings of its own.
    settings: Vec<String>,
    http: reqwest::Client,
    child: Child,
    address: String,
    key: String,
}

impl Mortal {
    pub async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test talks to its own server on loopback"
    )]
    pub async fn start_with(settings: Vec<String>) -> Self {
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
    pub async fn die_and_rise(&mut self) {
        self.die().await;
        let (child, address, _) = spawn(&self.data, self.database_url.as_deref(), &self.settings).await;
        (self.child, self.address) = (child, address);
    }

    /// As [`Mortal::die_and_rise`], with other settings of its own.
    pub async fn rise_with(&mut self, settings: Vec<String>) {
        self.settings = settings;
        self.die_and_rise().await;
    }

    pub async fn die(&mut self) {
        self.child.kill().await.expect("ours to kill");
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", self.address))
            .bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> Value {
        Reply::read(self.request(Method::GET, path).send().await.expect("an answer"))
            .await
            .expect(200)
            .json()
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        Reply::read(
            self.request(Method::POST, path)
                .json(&body)
                .send()
                .await
                .expect("an answer"),
        )
        .await
    }

    pub async fn chatbot(&self) -> String {
        self.post("/api/chatbots", json!({ "name": "Desk" }))
            .await
            .expect(201)
            .id()
    }

    pub async fn upload(&self, chatbot: &str, files: Vec<(String, String)>) -> Value {
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

    /// Runs another command of the program on what the server left.
    pub async fn command(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frontdesk"));
        command
            .env_clear()
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data);
        set(&mut command, self.database_url.as_deref(), &self.settings);
        command.output().await.expect("the program runs")
    }

    /// What the server left, opened without it.
    pub async fn database(&self) -> Db {
        Db::open(&self.database_address(), 2)
            .await
            .expect("the database opens")
    }

    fn database_address(&self) -> DatabaseUrl {
        self.database_url.clone().map_or_else(
            || DatabaseUrl::Sqlite(self.data.join("frontdesk.db")),
            DatabaseUrl::Postgres,
        )
    }

    /// From now on statements that insert into a table, or delete from it, fail: what needs them stands where it is.
    pub async fn veto(&self, statement: &str, table: &str) {
        let trigger = match self.database_url {
            Some(_) => format!(
                "create function veto() returns trigger language plpgsql as $$ begin raise exception 'vetoed'; end $$;
                 create trigger veto before {statement} on {table} for each row execute function veto()"
            ),
            None => format!(
                "create trigger veto before {statement} on {table} begin select raise(abort, 'vetoed'); end"
            ),
        };
        run_as_owner(&self.database_address(), &trigger).await;
    }

    pub async fn lift_veto(&self, table: &str) {
        let statements = match self.database_url {
            Some(_) => format!("drop trigger veto on {table}; drop function veto()"),
            None => "drop trigger veto".to_owned(),
        };
        run_as_owner(&self.database_address(), &statements).await;
    }

    /// Waits until a job of this kind has failed because of a veto, not of a death.
    pub async fn wait_vetoed(&self, kind: &str) {
        let db = self.database().await;
        until("the veto is met", async || {
            let mut conn = db.read(Scope::Operator).await.expect("a connection");
            let met: i64 = on!(conn, c => sqlx::query_scalar("select count(*) from job where kind = $1 and state = 'queued' and last_error not like '%died or stalled%'")
                .bind(kind).fetch_one(c).await)
            .expect("a count");
            met > 0
        })
        .await;
        db.close().await;
    }

    /// All documents of a chatbot.
    pub async fn documents(&self, chatbot: &str) -> Vec<Value> {
        self.get(&format!("/api/chatbots/{chatbot}/documents?limit=100"))
            .await["items"]
            .as_array()
            .expect("items")
            .clone()
    }

    pub async fn count(&self, chatbot: &str, state: &str) -> usize {
        self.documents(chatbot)
            .await
            .iter()
            .filter(|document| document["state"] == state)
            .count()
    }

    /// Fails the test unless the rows and the index that the dead server left hold the same chunks, `expected` of them.
    pub async fn check_stores(&self, expected: i64) {
        let db = self.database().await;
        let mut conn = db.read(Scope::Operator).await.expect("a connection");
        let rows: i64 = on!(conn, c => sqlx::query_scalar("select count(*) from chunk").fetch_one(c).await)
            .expect("a count");
        let tenant: Uuid = on!(conn, c => sqlx::query_scalar("select id from tenant").fetch_one(c).await)
            .expect("one tenant");
        let options = EmbeddedOptions {
            dir: self.data.join("index"),
            model_id: None,
            dimension: None,
            shards: 1,
            mends: true,
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
}

/// On a slow machine one job may meet all deaths of a test, and must not be taken for what causes them.
const MORE_ATTEMPTS_THAN_DEATHS: &str = "jobs.max_attempts=50";

fn set(command: &mut Command, database_url: Option<&str>, settings: &[String]) {
    for setting in [
        "embedding.model_dir=/nonexistent",
        MORE_ATTEMPTS_THAN_DEATHS,
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
    set(&mut command, database_url, settings);
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
