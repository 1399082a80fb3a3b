//! A Chromium process, spoken to in the Chrome DevTools Protocol over a pipe: JSON messages that end with a zero byte.
//! No debugging port is opened, so that nobody else on the machine can drive the browser.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::RenderSettings;

/// A browser reads commands from handle 3 and writes answers to handle 4; we can give it 0 and 1.
const MOVE_PIPES: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

/// Megabytes of JavaScript objects in one page.
const JS_HEAP: &str = "--js-flags=--max-old-space-size=256";

/// Messages besides rendered pages are smaller.
const MIN_MESSAGE_BYTES: usize = 8 << 20;

/// Folders of browsers of this process.
static FOLDERS: AtomicU64 = AtomicU64::new(0);

/// Why the browser did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrowserError {
    #[error("the browser could not be started or spoken to: {0}")]
    Io(#[from] io::Error),
    #[error("the browser refused {method}: {message}")]
    Refused { method: &'static str, message: String },
    #[error("the browser sent more than the limit")]
    TooLarge,
    #[error("the browser ended, or its page crashed")]
    Ended,
    #[error("hosts had no time for what the page asks for")]
    Held,
}

/// An event, as the browser sent it.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) method: String,
    pub(super) params: Value,
}

enum Message {
    Event(Event),
    Answer { id: u64, result: Result<Value, String> },
}

/// A running browser. Dropping it ends its processes and removes its files.
pub(super) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: BufReader<ChildStdout>,
    profile: PathBuf,
    next_id: u64,
    max_message_bytes: usize,
    /// The part of a message whose reading was interrupted.
    partial: Vec<u8>,
    /// Events that came while an answer was awaited.
    early: VecDeque<Event>,
}

impl Browser {
    /// Starts a browser whose every connection goes through `proxy`.
    pub(super) async fn start(settings: &RenderSettings, proxy: SocketAddr) -> Result<Self, BrowserError> {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let profile = settings
            .work_dir
            .join(format!("browser-{}-{number}", std::process::id()));
        tokio::fs::create_dir_all(&profile).await?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", MOVE_PIPES, "sh"])
            .arg(&settings.program)
            .args(arguments(settings, proxy))
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            // Nothing in our environment is the browser's business.
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &profile)
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(commands), Some(messages)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the pipes of the browser are missing").into());
        };
        let mut browser = Self {
            child,
            commands,
            messages: BufReader::new(messages),
            profile,
            next_id: 0,
            // JSON may take six bytes for one.
            max_message_bytes: MIN_MESSAGE_BYTES.max(settings.max_bytes.saturating_mul(6)),
            partial: Vec::new(),
            early: VecDeque::new(),
        };
        browser
            .call(None, "Browser.setDownloadBehavior", json!({"behavior": "deny"}))
            .await?;
        Ok(browser)
    }

    /// The id of its main process while it runs.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a command whose answer nobody waits for.
    pub(super) async fn tell(
        &mut self,
        session: Option<&str>,
        method: &'static str,
        params: Value,
    ) -> Result<u64, BrowserError> {
        self.next_id += 1;
        let mut command = json!({"id": self.next_id, "method": method, "params": params});
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).await?;
        self.commands.flush().await?;
        Ok(self.next_id)
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn call(
        &mut self,
        session: Option<&str>,
        method: &'static str,
        params: Value,
    ) -> Result<Value, BrowserError> {
        let sent = self.tell(session, method, params).await?;
        loop {
            match self.receive().await? {
                Message::Event(event) => self.early.push_back(event),
                Message::Answer { id, result } if id == sent => {
                    return result.map_err(|message| BrowserError::Refused { method, message });
                }
                Message::Answer { .. } => {}
            }
        }
    }

    /// The next event.
    pub(super) async fn next_event(&mut self) -> Result<Event, BrowserError> {
        if let Some(event) = self.early.pop_front() {
            return Ok(event);
        }
        loop {
            if let Message::Event(event) = self.receive().await? {
                return Ok(event);
            }
        }
    }

    /// Forgets events of the page before.
    pub(super) fn forget_events(&mut self) {
        self.early.clear();
    }

    /// Reads one message. Safe to interrupt: what was read so far stays.
    async fn receive(&mut self) -> Result<Message, BrowserError> {
        let left = self.max_message_bytes - self.partial.len();
        (&mut self.messages)
            .take(left as u64)
            .read_until(0, &mut self.partial)
            .await?;
        let mut bytes = std::mem::take(&mut self.partial);
        if bytes.last() != Some(&0) {
            let is_over = bytes.len() >= self.max_message_bytes;
            return Err(if is_over {
                BrowserError::TooLarge
            } else {
                BrowserError::Ended
            });
        }
        bytes.pop();
        let mut message: Value = serde_json::from_slice(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(id) = message["id"].as_u64() {
            let result = match message["error"]["message"].as_str() {
                Some(reason) => Err(reason.to_owned()),
                None => Ok(message["result"].take()),
            };
            return Ok(Message::Answer { id, result });
        }
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        if matches!(
            method.as_str(),
            "Inspector.targetCrashed" | "Target.targetCrashed"
        ) {
            return Err(BrowserError::Ended);
        }
        Ok(Message::Event(Event {
            method,
            params: message["params"].take(),
        }))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let profile = std::mem::take(&mut self.profile);
        // Its last processes may still be writing there.
        std::thread::spawn(move || {
            for _ in 0..20 {
                if std::fs::remove_dir_all(&profile).is_ok() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        });
    }
}

fn arguments(settings: &RenderSettings, proxy: SocketAddr) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--headless",
        "--remote-debugging-pipe",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-domain-reliability",
        "--disable-extensions",
        "--disable-features=Translate,OptimizationHints,MediaRouter",
        "--disable-sync",
        "--metrics-recording-only",
        "--mute-audio",
        "--no-default-browser-check",
        "--no-first-run",
        "--no-pings",
        "--blink-settings=imagesEnabled=false",
        JS_HEAP,
        // No way around the proxy: no names resolved here, no exception for loopback, no UDP.
        "--proxy-bypass-list=<-loopback>",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        "--dns-prefetch-disable",
        "--disable-quic",
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--proxy-server=http://{proxy}"));
    arguments.push(format!("--user-agent={}", settings.user_agent));
    if !settings.sandbox {
        arguments.push("--no-sandbox".to_owned());
    }
    arguments
}
