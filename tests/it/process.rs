//! The program as an operator and a script meet it: what it prints, how it ends, what it leaves on disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_frontdesk");

/// Long enough for the slowest machine; nothing here waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program run on `data_dir`, without an embedding model and with nothing of our own environment.
fn frontdesk(data_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .args(args)
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--set", "embedding.model_dir=/nonexistent"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(data_dir: &Path, args: &[&str]) -> Output {
    timeout(PATIENCE, frontdesk(data_dir, args).output()).await.expect("the command ends").expect("the program starts")
}

/// The output of a command that has to succeed.
async fn run_well(data_dir: &Path, args: &[&str]) -> String {
    let output = run(data_dir, args).await;
    assert!(output.status.success(), "{args:?}: {}", told(&output));
    String::from_utf8(output.stdout).expect("text")
}

async fn run_for_json(data_dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&run_well(data_dir, args).await).expect("one JSON document")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running server.
struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: Arc<Mutex<String>>,
    /// `127.0.0.1:port`
    address: String,
    first_key: Option<String>,
}

impl Server {
    async fn start(data_dir: &Path, args: &[&str]) -> Self {
        let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
        all.extend(args);
        let mut child = frontdesk(data_dir, &all).spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let kept = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                let mut log = kept.lock().expect("nobody panics with it");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut server = Self { child, lines, log, address: String::new(), first_key: None };
        loop {
            let line = server.line().await;
            if let Some(key) = line.strip_prefix("first API key (shown once): ") {
                server.first_key = Some(key.to_owned());
            } else if let Some(address) = line.strip_prefix("listening on http://") {
                server.address = address.to_owned();
                return server;
            } else {
                panic!("unexpected line {line:?}");
            }
        }
    }

    async fn line(&mut self) -> String {
        match timeout(PATIENCE, self.lines.next_line()).await.expect("a line comes") {
            Ok(Some(line)) => line,
            _ => panic!("the server ended: {}", self.log()),
        }
    }

    fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    async fn logged(&self, text: &str) {
        let wait = async {
            while !self.log().contains(text) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{text:?} is missing in {}", self.log()));
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("the server runs");
        kill_process(id, signal).expect("ours to signal");
    }

    async fn exit_code(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("the server ends").expect("its end is known").code()
    }

    async fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.exit_code().await, Some(0), "{}", self.log());
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("the server accepts")
    }

    /// The answer to a GET, head and body.
    async fn get(&self, path: &str, key: &str) -> String {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.expect("written");
        read_all(stream).await
    }

    /// A request that the server has begun to read and that waits for its body.
    async fn begin_request(&self, key: &str, body: &str) -> TcpStream {
        let mut stream = self.connect().await;
        let head = format!(
            "POST /api/chatbots HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut invitation = [0; 25];
        timeout(PATIENCE, stream.read_exact(&mut invitation)).await.expect("an answer comes").expect("readable");
        assert_eq!(&invitation, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    }
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the answer ends").expect("readable");
    String::from_utf8(bytes).expect("text")
}

fn data_dir() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("data");
    (folder, path)
}

#[tokio::test]
async fn the_first_start_shows_a_key_that_works_and_no_later_start_shows_one() {
    let (_folder, data) = data_dir();

    let server = Server::start(&data, &[]).await;

    let key = server.first_key.clone().expect("the first start shows a key");
    assert!(server.get("/api/chatbots", &key).await.starts_with("HTTP/1.1 200"));
    assert!(server.log().contains("search goes by keywords alone"), "{}", server.log());
    assert!(!server.log().contains(&key), "the key is in the log");
    server.stop().await;
    let server = Server::start(&data, &[]).await;
    assert_eq!(server.first_key, None);
    assert!(server.get("/api/chatbots", &key).await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

#[tokio::test]
async fn all_problems_of_a_configuration_are_told_together_before_anything_is_made() {
    let (folder, data) = data_dir();
    let file = folder.path().join("my.toml");
    std::fs::write(&file, "colour = 'red'\n[jobs]\nworkers = 0\n").expect("written");

    let output = run(&data, &["serve", "--config", file.to_str().expect("text"), "--listen", "everywhere", "--set", "log.level=a=b=c"]).await;

    assert_eq!(output.status.code(), Some(3));
    let listed = told(&output);
    for setting in ["colour", "server.listen"] {
        assert!(listed.contains(setting), "{setting} is missing in {listed}");
    }
    assert_eq!(output.stdout, b"");
    assert!(!data.exists(), "a data folder was made");
    let output = run(&data, &["serve", "--config", file.to_str().expect("text"), "--set", "log.level=a=b=c"]).await;
    assert_eq!(output.status.code(), Some(3));
    for setting in ["colour", "jobs.workers", "log.level"] {
        assert!(told(&output).contains(setting), "{setting} is missing in {}", told(&output));
    }
}

#[tokio::test]
async fn scripts_make_tenants_and_keys_with_and_without_a_server() {
    let (_folder, data) = data_dir();
    let acme = run_for_json(&data, &["tenant", "create", "--name", "acme", "--json"]).await;
    let server = Server::start(&data, &[]).await;
    assert_eq!(server.first_key, None, "there is a tenant already");
    let globex = run_for_json(&data, &["tenant", "create", "--name", "globex", "--json"]).await;
    let tenant_id = globex["tenant_id"].as_str().expect("an id");

    let key = run_for_json(&data, &["key", "create", "--tenant", tenant_id, "--scope", "ingest", "--scope", "chat", "--expires-in-days", "1", "--json"]).await;

    for made in [&acme, &globex] {
        let answer = server.get("/api/chatbots", made["api_key"].as_str().expect("a key")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let (key_id, secret) = (key["key_id"].as_str().expect("an id"), key["api_key"].as_str().expect("a key"));
    assert!(server.get("/api/chatbots", secret).await.starts_with("HTTP/1.1 200"));
    assert!(server.get("/api/audit", secret).await.starts_with("HTTP/1.1 403"), "more than its scopes");

    assert_eq!(run_well(&data, &["key", "revoke", key_id]).await, "the key is revoked\n");

    assert!(server.get("/api/chatbots", secret).await.starts_with("HTTP/1.1 401"));
    assert_eq!(run_well(&data, &["key", "revoke", key_id]).await, "the key was revoked already\n");
    let tenants = run_for_json(&data, &["tenant", "list", "--json"]).await;
    let names: Vec<_> = tenants.as_array().expect("a list").iter().map(|tenant| tenant["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["acme", "globex"]);
    server.stop().await;
}

#[tokio::test]
async fn exit_codes_tell_what_kind_of_failure_it_was() {
    let (_folder, data) = data_dir();
    let nobody = uuid::Uuid::nil().to_string();

    for (args, code) in [
        (vec!["tenant", "create", "--name", ""], 2),
        (vec!["key", "create", "--tenant", &nobody, "--scope", "everything"], 2),
        (vec!["key", "create", "--tenant", &nobody, "--scope", "chat"], 4),
        (vec!["key", "revoke", &nobody], 4),
        (vec!["ask", "--chatbot", &nobody, "Hello?", "--set", "server.listen=127.0.0.1:0"], 4),
        (vec!["ask", "--chatbot", &nobody, "Hello?", "--server", "http://127.0.0.1:1"], 1),
        (vec!["health", "--server", "http://127.0.0.1:1"], 1),
        (vec!["health", "--set", "server.listen=127.0.0.1:0"], 2),
        (vec!["serve", "--demo", "/nonexistent"], 2),
        (vec!["migrate", "--set", "database.url=mysql://x"], 3),
        (vec!["migrate", "--set", "database.url=postgres://nobody@127.0.0.1:1/nothing"], 1),
    ] {
        let output = run(&data, &args).await;

        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", told(&output));
        assert_eq!(output.stdout, b"", "{args:?}");
        assert!(!told(&output).is_empty(), "{args:?} says nothing");
    }
}

#[tokio::test]
async fn a_second_server_is_told_what_is_in_use_and_what_to_do() {
    let (_folder, data) = data_dir();
    let (_other_folder, other_data) = data_dir();
    let server = Server::start(&data, &[]).await;

    let same_folder = run(&data, &["serve", "--listen", "127.0.0.1:0"]).await;
    let same_address = run(&other_data, &["serve", "--listen", &server.address]).await;

    assert_eq!(same_folder.status.code(), Some(5), "{}", told(&same_folder));
    assert!(told(&same_folder).contains("in use by another frontdesk process") && told(&same_folder).contains("--data-dir"), "{}", told(&same_folder));
    assert_eq!(same_address.status.code(), Some(5), "{}", told(&same_address));
    assert!(told(&same_address).contains("--listen"), "{}", told(&same_address));
    assert_eq!(same_address.stdout, b"", "no key is shown by a start that fails");
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_runs_when_the_server_is_stopped_gets_its_answer() {
    let (_folder, data) = data_dir();
    let mut server = Server::start(&data, &[]).await;
    let key = server.first_key.clone().expect("the first key");
    let body = r#"{"name":"Late"}"#;
    let mut request = server.begin_request(&key, body).await;

    server.signal(Signal::TERM);
    server.logged("stopping").await;
    request.write_all(body.as_bytes()).await.expect("written");

    let answer = read_all(request).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(server.exit_code().await, Some(0), "{}", server.log());
    assert!(TcpStream::connect(&server.address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_second_signal_ends_the_server_at_once() {
    let (_folder, data) = data_dir();
    let mut server = Server::start(&data, &["--set", "server.shutdown_grace_s=600"]).await;
    let key = server.first_key.clone().expect("the first key");
    let _request = server.begin_request(&key, r#"{"name":"Never sent"}"#).await;
    server.signal(Signal::INT);
    server.logged("stopping").await;

    server.signal(Signal::INT);

    assert_eq!(server.exit_code().await, Some(130));
}

#[tokio::test]
async fn a_worker_opens_no_port_and_ends_in_order() {
    let (_folder, data) = data_dir();
    let mut child = frontdesk(&data, &["serve", "--role", "worker", "--listen", "127.0.0.1:1"]).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();

    let line = timeout(PATIENCE, lines.next_line()).await.expect("a line comes").expect("readable");

    assert_eq!(line.as_deref(), Some("working"));
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("it runs");
    kill_process(id, Signal::TERM).expect("ours to signal");
    assert_eq!(timeout(PATIENCE, child.wait()).await.expect("it ends").expect("known").code(), Some(0));
    assert_eq!(lines.next_line().await.expect("readable"), None, "nothing else is printed");
}

#[tokio::test]
async fn migrating_tells_what_it_did() {
    let (_folder, data) = data_dir();

    let first = run_well(&data, &["migrate"]).await;
    let second = run_well(&data, &["migrate"]).await;

    assert!(first.starts_with("applied 0001 "), "{first}");
    assert!(second.starts_with("the schema is up to date"), "{second}");
    assert!(first.ends_with(&second), "{first}");
}

#[tokio::test]
async fn the_openapi_document_and_the_health_of_a_server_can_be_asked_for() {
    let (_folder, data) = data_dir();
    let server = Server::start(&data, &[]).await;

    let document = run_for_json(&data, &["openapi"]).await;
    let health = run(&data, &["health", "--set", &format!("server.listen={}", server.address)]).await;

    assert!(document["paths"]["/api/chat/message"].is_object());
    assert_eq!(health.status.code(), Some(0), "{}", told(&health));
    server.stop().await;
}

#[tokio::test]
async fn the_demo_answers_with_citations_through_the_server_and_without_one() {
    let (_folder, data) = data_dir();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo");
    let mut server = Server::start(&data, &["--demo", demo]).await;
    let mut pasted = String::new();
    while !pasted.ends_with("}'\n") {
        pasted.push_str(&server.line().await);
        pasted.push('\n');
    }
    let chatbot_id = pasted.split("\"chatbot_id\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id").to_owned();
    assert!(pasted.contains(server.first_key.as_deref().expect("the first key")), "{pasted}");
    let url = format!("http://{}", server.address);

    let told = run_well(&data, &["ask", "--chatbot", &chatbot_id, "How long can I return something?", "--server", &url]).await;

    assert!(told.contains("45 days"), "{told}");
    assert!(told.contains("\n[1] "), "no citation in {told}");
    let keys = server.get("/api/keys", &server.first_key.clone().expect("the first key")).await;
    let keys: Value = serde_json::from_str(keys.split_once("\r\n\r\n").expect("a head and a body").1).expect("JSON");
    let used = keys["items"].as_array().expect("a list").iter().find(|key| key["name"] == "frontdesk ask").expect("the key that asked");
    assert!(used["revoked_at"].is_string() && used["expires_at"].is_string() && used["chatbot_id"] == chatbot_id.as_str(), "{used}");
    server.stop().await;

    let answer = run_for_json(&data, &["ask", "--chatbot", &chatbot_id, "How long can I return something?", "--json", "--set", "server.listen=127.0.0.1:0"]).await;

    assert!(answer["answer"].as_str().expect("text").contains("45 days"), "{answer}");
    assert_eq!(answer["source"], "extractive");
    assert!(answer["citations"][0]["document_id"].is_string(), "{answer}");
    let restarted = Server::start(&data, &["--demo", demo]).await;
    restarted.logged("the demo is left out").await;
    restarted.stop().await;
}

#[tokio::test]
async fn what_the_server_writes_is_readable_by_its_user_alone() {
    let (_folder, data) = data_dir();
    let server = Server::start(&data, &[]).await;

    let mut folders = vec![data.clone()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("readable") {
            let entry = entry.expect("readable");
            let metadata = entry.metadata().expect("known");
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{} is open to others", entry.path().display());
            seen += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }

    assert!(seen >= 3, "database, key and files are there");
    server.stop().await;
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let output = run(&data, &["serve"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(told(&output).contains("chmod 700"), "{}", told(&output));
}
