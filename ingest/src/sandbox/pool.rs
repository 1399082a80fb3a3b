//! The service's side of the sandbox: keeps extractor processes, feeds them documents, buries the dead.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::protocol::{
    MAX_SCANS_BYTES, Reply, RequestHead, Wanted, decode_scans, encode_head, max_reply_bytes,
};
use crate::extract::Scans;
use crate::ocr::OcrOptions;
use crate::{ExtractError, ExtractedDocument, Format, Hints, Limits};

/// Documents after which a process is replaced, so that leaks stay small.
const DOCUMENTS_PER_PROCESS: u32 = 500;

/// Resident memory above which a process is replaced rather than kept for the next document.
const KEEP_BELOW_BYTES: u64 = 96 << 20;

/// Documents from this size on may have made the process grow; smaller ones are not checked.
const CHECK_GROWTH_FROM_BYTES: usize = 256 << 10;

/// Replies from this size on take milliseconds to decode, which must not hold up the other tasks.
const DECODE_ASIDE_FROM_BYTES: usize = 512 << 10;

/// Idle processes end after this time, so that a service at rest holds no memory for them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the memory of a process is looked at while it reads.
const MEMORY_WATCH: Duration = Duration::from_millis(50);

/// What a process writes to its error output when it dies is short; the rest does not matter.
const MAX_LAST_WORDS_BYTES: u64 = 4 << 10;

/// How the reply starts after a panic.
const PANICKED: &[u8] = br#"{"Err":{"code":"crashed""#;

/// `SIGKILL` from outside is the kernel running out of memory.
const SIGNAL_KILL: i32 = 9;

/// `SIGXCPU`: the process used up its CPU time.
const SIGNAL_CPU_TIME: i32 = 24;

/// Extractor processes, started when first needed, reused for many documents, at most `size` at once.
///
/// Dropping the pool ends its processes. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct ExtractorPool {
    shared: Arc<Shared>,
    ocr: Option<OcrOptions>,
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    args: Vec<String>,
    limits: Limits,
    idle_timeout: Duration,
    slots: Semaphore,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Latest used last, so that surplus ones stay unused and expire.
    processes: Vec<(Instant, Process)>,
    reaper_runs: bool,
}

impl ExtractorPool {
    /// A pool that starts `program` with `args`, which must run [`child_main`](super::child_main).
    pub fn new(program: PathBuf, args: Vec<String>, size: usize, limits: Limits) -> Self {
        Self::with_idle_timeout(program, args, size, limits, IDLE_TIMEOUT)
    }

    /// [`ExtractorPool::new`] with another time after which idle processes end.
    pub fn with_idle_timeout(
        program: PathBuf,
        args: Vec<String>,
        size: usize,
        limits: Limits,
        idle_timeout: Duration,
    ) -> Self {
        let slots = Semaphore::new(size.clamp(1, Semaphore::MAX_PERMITS));
        let idle = Mutex::default();
        Self {
            shared: Arc::new(Shared {
                program,
                args,
                limits,
                idle_timeout,
                slots,
                idle,
            }),
            ocr: None,
        }
    }

    /// Scanned pages are read by text recognition, which takes seconds a page.
    pub fn with_ocr(mut self, ocr: OcrOptions) -> Self {
        self.ocr = Some(ocr);
        self
    }

    /// Extracts the file at `path`, within the limits of the pool.
    ///
    /// Waits for a free process. A process that dies costs this document only; if it had read others
    /// before, the document gets a second try in a fresh one. Dropping the future ends the process.
    pub async fn extract(
        &self,
        path: &Path,
        format: Format,
        hints: &Hints,
    ) -> Result<ExtractedDocument, ExtractError> {
        let _slot = self
            .shared
            .slots
            .acquire()
            .await
            .map_err(|_| ExtractError::Crashed)?;
        let body = tokio::fs::read(path).await.map_err(|error| {
            tracing::error!(%error, "a stored document cannot be opened");
            ExtractError::Crashed
        })?;
        self.read_bytes(&body, format, hints).await
    }

    /// Like [`ExtractorPool::extract`], for a file that is in memory anyway.
    pub async fn extract_bytes(
        &self,
        bytes: &[u8],
        format: Format,
        hints: &Hints,
    ) -> Result<ExtractedDocument, ExtractError> {
        let _slot = self
            .shared
            .slots
            .acquire()
            .await
            .map_err(|_| ExtractError::Crashed)?;
        self.read_bytes(bytes, format, hints).await
    }

    async fn read_bytes(&self, body: &[u8], format: Format, hints: &Hints) -> Reply {
        let json = self.ask(body, format, hints, Wanted::Text).await?;
        let reply = if json.len() < DECODE_ASIDE_FROM_BYTES {
            serde_json::from_slice(&json).map_err(io::Error::from)
        } else {
            tokio::task::spawn_blocking(move || serde_json::from_slice(&json).map_err(io::Error::from))
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        let reply = reply.unwrap_or_else(|error| Err(broken_reply(&error)));
        if matches!(reply, Err(ExtractError::Crashed)) {
            tracing::warn!(format = format.as_str(), "an extractor panicked on a document");
        }
        let Some(ocr) = &self.ocr else { return reply };
        let limits = &self.shared.limits;
        ocr.complete(reply, limits, |after| self.scans(body, format, hints, after))
            .await
    }

    /// The images of the next scanned pages after page `after`.
    async fn scans(
        &self,
        body: &[u8],
        format: Format,
        hints: &Hints,
        after: u32,
    ) -> Result<Scans, ExtractError> {
        let bytes = self.ask(body, format, hints, Wanted::Scans { after }).await?;
        decode_scans(&bytes).unwrap_or_else(|error| Err(broken_reply(&error)))
    }

    /// The reply of a process, as it came.
    async fn ask(
        &self,
        body: &[u8],
        format: Format,
        hints: &Hints,
        wanted: Wanted,
    ) -> Result<Vec<u8>, ExtractError> {
        let limits = &self.shared.limits;
        let head = RequestHead {
            wanted,
            format,
            hints: hints.clone(),
            limits: limits.clone(),
            body_bytes: body.len() as u64,
        };
        let max_bytes = match wanted {
            Wanted::Text => max_reply_bytes(limits),
            Wanted::Scans { .. } => MAX_SCANS_BYTES,
        };
        let head = encode_head(&head).map_err(|_| ExtractError::Crashed)?;
        let mut process = self.shared.take_or_start()?;
        loop {
            let was_fresh = process.documents_read == 0;
            match process.read_document(&head, body, max_bytes, limits).await {
                Ok(reply) => {
                    // A panic may leave anything behind.
                    if !reply.starts_with(PANICKED) && process.may_be_kept(body.len()) {
                        Shared::keep(&self.shared, process);
                    }
                    return Ok(reply);
                }
                Err(error) => {
                    tracing::warn!(
                        format = format.as_str(),
                        code = error.code(),
                        "an extractor process died"
                    );
                    // What earlier documents left behind may be to blame.
                    let fair_trial = was_fresh || matches!(error, ExtractError::TimedOut { .. });
                    if fair_trial {
                        return Err(error);
                    }
                    process = self.shared.start()?;
                }
            }
        }
    }

    /// Processes that wait for a document.
    pub fn idle_processes(&self) -> usize {
        self.shared.lock_idle().processes.len()
    }
}

impl Shared {
    fn lock_idle(&self) -> MutexGuard<'_, Idle> {
        // A list of processes is whole between any two statements.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_or_start(&self) -> Result<Process, ExtractError> {
        let waiting = self.lock_idle().processes.pop();
        if let Some((_, process)) = waiting {
            return Ok(process);
        }
        self.start()
    }

    fn start(&self) -> Result<Process, ExtractError> {
        Process::start(&self.program, &self.args).map_err(|error| {
            tracing::error!(%error, "an extractor process cannot be started");
            ExtractError::Crashed
        })
    }

    fn keep(shared: &Arc<Self>, process: Process) {
        let mut idle = shared.lock_idle();
        idle.processes.push((Instant::now(), process));
        if idle.reaper_runs {
            return;
        }
        idle.reaper_runs = true;
        let weak = Arc::downgrade(shared);
        let period = shared.idle_timeout / 2;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(shared) = weak.upgrade() else { return };
                if shared.reap() {
                    return;
                }
            }
        });
    }

    /// Ends processes that were idle for too long; true when none is left to look after.
    fn reap(&self) -> bool {
        let mut idle = self.lock_idle();
        let (old, fresh) = std::mem::take(&mut idle.processes)
            .into_iter()
            .partition(|(since, _)| since.elapsed() >= self.idle_timeout);
        idle.processes = fresh;
        let done = idle.processes.is_empty();
        idle.reaper_runs = !done;
        drop(idle);
        let old: Vec<(Instant, Process)> = old;
        drop(old);
        done
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    pid: u32,
    documents_read: u32,
}

impl Process {
    fn start(program: &Path, args: &[String]) -> io::Result<Self> {
        let mut child = Command::new(program)
            .args(args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lacks = || io::Error::other("the process has no pipes");
        let input = child.stdin.take().ok_or_else(lacks)?;
        let output = child.stdout.take().ok_or_else(lacks)?;
        let pid = child.id().ok_or_else(lacks)?;
        Ok(Self {
            child,
            input,
            output,
            pid,
            documents_read: 0,
        })
    }

    /// The process's reply, or why there is none; after that the process is dead.
    async fn read_document(
        &mut self,
        head: &[u8],
        body: &[u8],
        max_reply_bytes: u64,
        limits: &Limits,
    ) -> Result<Vec<u8>, ExtractError> {
        let pid = self.pid;
        let exchange = self.exchange(head, body, max_reply_bytes);
        let outcome = tokio::select! {
            outcome = timeout(limits.timeout, exchange) => outcome,
            () = grown_beyond(pid, limits.memory_bytes) => {
                self.end().await;
                return Err(ExtractError::OutOfMemory);
            }
        };
        match outcome {
            Ok(Ok(reply)) => {
                self.documents_read += 1;
                Ok(reply)
            }
            Ok(Err(_)) => Err(self.cause_of_death(limits).await),
            Err(_) => {
                self.end().await;
                Err(timed_out(limits))
            }
        }
    }

    async fn exchange(&mut self, head: &[u8], body: &[u8], max_reply_bytes: u64) -> io::Result<Vec<u8>> {
        if body.len() < 64 << 10 {
            self.input.write_all(&[head, body].concat()).await?;
        } else {
            self.input.write_all(head).await?;
            self.input.write_all(body).await?;
        }
        self.input.flush().await?;
        let length = self.output.read_u64_le().await?;
        if length > max_reply_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "reply too long"));
        }
        let mut reply = Vec::new();
        (&mut self.output).take(length).read_to_end(&mut reply).await?;
        if reply.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(reply)
    }

    async fn end(&mut self) {
        // It may be dead already, which is what we want.
        let _ = self.child.kill().await;
    }

    async fn cause_of_death(&mut self, limits: &Limits) -> ExtractError {
        let status = match timeout(Duration::from_secs(1), self.child.wait()).await {
            Ok(Ok(status)) => status,
            // It lives, but broke the protocol.
            _ => {
                self.end().await;
                return ExtractError::Crashed;
            }
        };
        let mut last_words = Vec::new();
        if let Some(errors) = self.child.stderr.take() {
            let mut errors = errors.take(MAX_LAST_WORDS_BYTES);
            let read = errors.read_to_end(&mut last_words);
            // What cannot be read now decides nothing.
            let _ = timeout(Duration::from_millis(200), read).await;
        }
        judge_death(status, &String::from_utf8_lossy(&last_words), limits)
    }

    fn may_be_kept(&self, last_document_bytes: usize) -> bool {
        if self.documents_read >= DOCUMENTS_PER_PROCESS {
            return false;
        }
        last_document_bytes < CHECK_GROWTH_FROM_BYTES
            || resident_bytes(self.pid).is_some_and(|bytes| bytes < KEEP_BELOW_BYTES)
    }
}

fn broken_reply(error: &io::Error) -> ExtractError {
    tracing::warn!(%error, "an extractor gave a reply that cannot be read");
    ExtractError::Crashed
}

fn judge_death(status: ExitStatus, last_words: &str, limits: &Limits) -> ExtractError {
    // Rust's allocator says so and aborts; a capture of the words is the only way to know.
    if last_words.contains("memory allocation of") || status.signal() == Some(SIGNAL_KILL) {
        return ExtractError::OutOfMemory;
    }
    if status.signal() == Some(SIGNAL_CPU_TIME) {
        return timed_out(limits);
    }
    ExtractError::Crashed
}

fn timed_out(limits: &Limits) -> ExtractError {
    ExtractError::TimedOut {
        seconds: limits.timeout.as_secs().max(1),
    }
}

/// Returns once the process holds more memory than `limit`. The address-space limit alone would not do:
/// allocators reserve space in advance.
async fn grown_beyond(pid: u32, limit: u64) {
    let mut watch = interval(MEMORY_WATCH);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    watch.tick().await;
    loop {
        watch.tick().await;
        match resident_bytes(pid) {
            Some(bytes) if bytes <= limit => {}
            Some(_) => return,
            // It died, which the exchange will notice.
            None => std::future::pending::<()>().await,
        }
    }
}

fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
