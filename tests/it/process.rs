//! The program as an operator and a script meet it: what it prints, how it ends, what it leaves on disk.

mod commands;
mod eval;
mod ingest;
mod roles;
mod server;

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
    timeout(PATIENCE, frontdesk(data_dir, args).output())
        .await
        .expect("the command ends")
        .expect("the program starts")
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
    /// `127.0.0.1:port`; empty where the role is worker.
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
        let mut server = Self {
            child,
            lines,
            log,
            address: String::new(),
            first_key: None,
        };
        loop {
            let line = server.line().await;
            if let Some(key) = line.strip_prefix("first API key (shown once): ") {
                server.first_key = Some(key.to_owned());
            } else if let Some(address) = line.strip_prefix("listening on http://") {
                server.address = address.to_owned();
                return server;
            } else if line == "working" {
                return server;
            } else {
                panic!("unexpected line {line:?}");
            }
        }
    }

    async fn line(&mut self) -> String {
        match timeout(PATIENCE, self.lines.next_line())
            .await
            .expect("a line comes")
        {
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
        timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("{text:?} is missing in {}", self.log()));
    }

    fn signal(&self, signal: Signal) {
        let id = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .expect("the server runs");
        kill_process(id, signal).expect("ours to signal");
    }

    async fn exit_code(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("the server ends")
            .expect("its end is known")
            .code()
    }

    async fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.exit_code().await, Some(0), "{}", self.log());
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address)
            .await
            .expect("the server accepts")
    }

    /// The answer to a GET, head and body.
    async fn get(&self, path: &str, key: &str) -> String {
        let mut stream = self.connect().await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        read_all(stream).await
    }

    /// The answer to a POST, head and body.
    async fn post(&self, path: &str, key: &str, content_type: &str, body: &str) -> String {
        let mut stream = self.connect().await;
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
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
        timeout(PATIENCE, stream.read_exact(&mut invitation))
            .await
            .expect("an answer comes")
            .expect("readable");
        assert_eq!(&invitation, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    }
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the answer ends")
        .expect("readable");
    String::from_utf8(bytes).expect("text")
}

fn data_dir() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("data");
    (folder, path)
}
