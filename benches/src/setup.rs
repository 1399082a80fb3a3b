//! A server with a tenant, a chatbot and knowledge, in a folder of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::client::{Client, json_request, request, upload_request};
use crate::corpus;
use crate::model::{DIMENSION, ScriptedModel};
use crate::server::{Memory, Server};

/// Files of one upload while the knowledge is fed.
const FILES_AT_ONCE: usize = 100;

/// Between two looks at the job queue.
const QUEUE_LOOK: Duration = Duration::from_millis(20);

/// Longest wait for the job queue to run empty.
const QUEUE_LIMIT: Duration = Duration::from_secs(600);

/// Which cores do what.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The server's own; none: it shares all of them with the clients.
    pub server: Option<usize>,
    /// Left for the clients and the scripted model.
    pub clients: usize,
}

impl Cores {
    /// Nothing is set aside.
    pub fn undivided() -> Self {
        Self {
            server: None,
            clients: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Sets the first core aside for the server and keeps this process off it, where the machine has more than one.
pub fn divide_cores() -> Cores {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let keep_off = std::process::Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid"])
        .arg(format!("1-{}", all - 1))
        .arg(std::process::id().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if all > 1 && keep_off.is_ok_and(|status| status.success()) {
        Cores {
            server: Some(SERVER_CORE),
            clients: all - 1,
        }
    } else {
        Cores::undivided()
    }
}

/// The core that [`divide_cores`] sets aside.
const SERVER_CORE: usize = 0;

/// The server's core, if this process was kept off one.
pub fn server_core() -> Option<usize> {
    let all = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = all
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .unwrap_or_default()
        .trim();
    (!own.is_empty() && !own.starts_with('0')).then_some(SERVER_CORE)
}

/// Every core of the machine, as `taskset` names them.
fn all_cores() -> String {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    match online.trim() {
        "" => "0".to_owned(),
        cores => cores.to_owned(),
    }
}

/// The embedding model's folder, if it was fetched.
pub fn local_model_dir() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/all-MiniLM-L6-v2");
    folder.join("model.safetensors").exists().then_some(folder)
}

/// Where Cargo builds to: this program lies in a folder of it.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own
        .ancestors()
        .nth(2)
        .context("this program lies in no target folder")?
        .to_owned())
}

/// The binary under test, beside this one.
fn program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("frontdesk");
    ensure!(
        program.exists(),
        "build it first: cargo build --release --package frontdesk"
    );
    Ok(program)
}

/// Where embeddings come from.
#[derive(Clone, Debug)]
pub enum Embedding {
    /// Nowhere: search by words.
    Off,
    /// The scripted server.
    Remote,
    /// The model in this folder.
    Local(PathBuf),
}

/// Where the data folders of this run are. They stay until its end: a file system that has just deleted many files is
/// slow at making new ones (ext4), and that would be measured.
pub fn data_root() -> PathBuf {
    std::env::temp_dir().join(format!("frontdesk-bench-{}", std::process::id()))
}

/// A data folder and how a server is started on it.
pub struct Installation {
    folder: PathBuf,
    settings: Vec<String>,
    has_all_cores: bool,
}

impl Installation {
    pub fn new(embedding: &Embedding, model: &ScriptedModel) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data_root())?;
        let folder = tempfile::tempdir_in(data_root())?.keep();
        let base_url = model.base_url();
        let mut settings = vec![
            format!("llm.base_url={base_url}"),
            "llm.model=bench".to_owned(),
            "log.level=warn".to_owned(),
            // The load must not be turned away for being a load.
            "limits.requests_per_minute_per_key=1000000000".to_owned(),
            "limits.requests_per_minute_per_tenant=1000000000".to_owned(),
            "limits.requests_per_minute_per_address=1000000000".to_owned(),
        ];
        match embedding {
            Embedding::Off => settings.push(format!("embedding.model_dir={}", folder.join("none").display())),
            Embedding::Local(folder) => settings.push(format!("embedding.model_dir={}", folder.display())),
            Embedding::Remote => settings.extend([
                "embedding.backend=openai".to_owned(),
                format!("embedding.base_url={base_url}"),
                "embedding.model=bench-embedding".to_owned(),
                format!("embedding.dimension={DIMENSION}"),
            ]),
        }
        Ok(Self {
            folder,
            settings,
            has_all_cores: false,
        })
    }

    /// The same with more settings.
    pub fn set<T: Into<String>>(mut self, settings: impl IntoIterator<Item = T>) -> Self {
        self.settings.extend(settings.into_iter().map(Into::into));
        self
    }

    /// The server may use every core, whatever this process keeps to.
    pub fn on_all_cores(mut self) -> Self {
        self.has_all_cores = true;
        self
    }

    fn arguments(&self, command: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = command.iter().map(OsString::from).collect();
        arguments.push("--data-dir".into());
        arguments.push(self.folder.join("data").into());
        for setting in &self.settings {
            arguments.push("--set".into());
            arguments.push(setting.into());
        }
        arguments
    }

    pub async fn start(&self) -> anyhow::Result<Server> {
        let cores = match server_core() {
            Some(_) if self.has_all_cores => Some(all_cores()),
            core => core.map(|core| core.to_string()),
        };
        Server::start(
            &program()?,
            &self.arguments(&["serve", "--listen", "127.0.0.1:0"]),
            cores,
        )
        .await
    }

    /// Makes a tenant at the command line; returns its key.
    pub async fn create_tenant(&self, name: &str) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(program()?)
            .args(self.arguments(&["tenant", "create", "--name", name, "--json"]))
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "tenant create failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let created: Value = serde_json::from_slice(&output.stdout)?;
        Ok(created["api_key"]
            .as_str()
            .context("no key was printed")?
            .to_owned())
    }
}

/// A running server with a tenant and a chatbot.
pub struct Service {
    pub installation: Installation,
    pub server: Server,
    pub api_key: String,
    pub chatbot_id: String,
    /// Documents that the chatbot knows.
    pub documents: usize,
}

impl Service {
    /// A server whose chatbot knows nothing yet.
    pub async fn empty(embedding: Embedding, model: &ScriptedModel) -> anyhow::Result<Self> {
        Self::on(Installation::new(&embedding, model)?).await
    }

    /// The same, on an installation of its own kind.
    pub async fn on(installation: Installation) -> anyhow::Result<Self> {
        let api_key = installation.create_tenant("bench").await?;
        let server = installation.start().await?;
        let mut client = Client::connect(server.address).await?;
        let chatbot_id = create_chatbot(&mut client, &api_key).await?;
        Ok(Self {
            installation,
            server,
            api_key,
            chatbot_id,
            documents: 0,
        })
    }

    /// A server whose chatbot knows the first short documents of the corpus.
    pub async fn fed(embedding: Embedding, model: &ScriptedModel, documents: usize) -> anyhow::Result<Self> {
        let mut service = Self::empty(embedding, model).await?;
        let files: Vec<(String, String)> = (0..documents).map(corpus::short_document).collect();
        service.upload(&files).await?;
        service.documents = documents;
        service.wait_until_indexed().await?;
        Ok(service)
    }

    /// Uploads files, a hundred in each request.
    pub async fn upload(&self, files: &[(String, String)]) -> anyhow::Result<()> {
        let mut client = Client::connect(self.server.address).await?;
        for group in files.chunks(FILES_AT_ONCE) {
            let answer = client
                .send(&upload_request(&self.chatbot_id, &self.api_key, group))
                .await?;
            ensure!(
                answer.status == 202,
                "an upload was refused: {}",
                String::from_utf8_lossy(&answer.body)
            );
        }
        Ok(())
    }

    /// Waits until no job is left.
    pub async fn wait_until_indexed(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(self.server.address).await?;
        let started = Instant::now();
        for state in ["queued", "running", "queued"] {
            while self.has_jobs(&mut client, state).await? {
                ensure!(
                    started.elapsed() < QUEUE_LIMIT,
                    "indexing took longer than {} s",
                    QUEUE_LIMIT.as_secs()
                );
                tokio::time::sleep(QUEUE_LOOK).await;
            }
        }
        Ok(())
    }

    async fn has_jobs(&self, client: &mut Client, state: &str) -> anyhow::Result<bool> {
        let path = format!("/api/jobs?state={state}&limit=1");
        let answer = client
            .send(&request("GET", &path, &self.api_key, "application/json", b""))
            .await?;
        let page: Value = serde_json::from_slice(&answer.body)?;
        Ok(!page["items"].as_array().context("no page of jobs")?.is_empty())
    }

    /// How many chunks the newest documents have, at most a hundred of them.
    pub async fn chunks_of_newest(&self) -> anyhow::Result<u64> {
        let mut client = Client::connect(self.server.address).await?;
        let path = format!("/api/chatbots/{}/documents?limit=100", self.chatbot_id);
        let answer = client
            .send(&request("GET", &path, &self.api_key, "application/json", b""))
            .await?;
        let page: Value = serde_json::from_slice(&answer.body)?;
        let documents = page["items"].as_array().context("no page of documents")?;
        Ok(documents
            .iter()
            .filter_map(|document| document["chunks"].as_u64())
            .sum())
    }

    /// Stops the server and starts it again on the same data.
    pub async fn restart(mut self) -> anyhow::Result<Self> {
        self.server.stop().await?;
        self.server = self.installation.start().await?;
        Ok(self)
    }

    pub fn memory(&self) -> Memory {
        self.server.memory()
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.server.stop().await
    }
}

/// Makes a chatbot; returns its id.
pub async fn create_chatbot(client: &mut Client, api_key: &str) -> anyhow::Result<String> {
    let answer = client
        .send(&json_request(
            "/api/chatbots",
            api_key,
            &json!({ "name": "Bench" }),
        ))
        .await?;
    let chatbot: Value = serde_json::from_slice(&answer.body)?;
    Ok(chatbot["id"]
        .as_str()
        .with_context(|| format!("no chatbot was made: {chatbot}"))?
        .to_owned())
}
