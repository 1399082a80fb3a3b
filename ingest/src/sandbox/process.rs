//! One extractor process: starting it, talking to it, and telling what it died of.

use std::borrow::Cow;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{ExtractError, Limits};

/// Documents after which a process is replaced, so that leaks stay small.
const DOCUMENTS_PER_PROCESS: u32 = 500;

/// Resident memory above which a process is replaced rather than kept for the next document.
const KEEP_BELOW_BYTES: u64 = 96 << 20;

/// Documents from this size on may have made the process grow; smaller ones are not checked.
const CHECK_GROWTH_FROM_BYTES: u64 = 256 << 10;

/// Smaller bodies go over the pipe together with their head.
const JOIN_BELOW_BYTES: usize = 64 << 10;

/// How often the memory of a process is looked at while it reads.
const MEMORY_WATCH: Duration = Duration::from_millis(50);

/// What a process writes to its error output when it dies is short; the rest does not matter.
const MAX_LAST_WORDS_BYTES: u64 = 4 << 10;

/// `SIGKILL` from outside is the kernel running out of memory.
const SIGNAL_KILL: i32 = 9;

/// `SIGXCPU`: the process used up its CPU time.
const SIGNAL_CPU_TIME: i32 = 24;

/// Files from this size on are not held in memory, but passed on as they are read, to a process of their own.
pub(super) const STREAM_FROM_BYTES: u64 = 1 << 20;

/// The bytes of a document.
pub(super) enum Body<'a> {
    Bytes(Cow<'a, [u8]>),
    /// With its size. It is read once.
    File(tokio::fs::File, u64),
}

impl Body<'_> {
    /// Of the file at `path`: a large one is passed on as it is read.
    pub(super) async fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = tokio::fs::File::open(path).await?;
        let size = file.metadata().await?.len();
        if size >= STREAM_FROM_BYTES {
            return Ok(Self::File(file, size));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.read_to_end(&mut bytes).await?;
        Ok(Self::Bytes(Cow::Owned(bytes)))
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size) => *size,
        }
    }
}

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// None once a file is on its way: the process is not used again.
    input: Option<ChildStdin>,
    /// Holds the input then, so that it stays open.
    sending: Option<JoinHandle<io::Result<ChildStdin>>>,
    output: ChildStdout,
    pid: u32,
    documents_read: u32,
}

impl Process {
    pub(super) fn start(program: &Path, args: &[String]) -> io::Result<Self> {
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
            input: Some(input),
            sending: None,
            output,
            pid,
            documents_read: 0,
        })
    }

    /// Has not read a document yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.documents_read == 0
    }

    pub(super) fn count_document(&mut self) {
        self.documents_read += 1;
    }

    /// Sends a request within `time`; after an error the process is dead. A file is still on its way afterwards.
    pub(super) async fn send(
        &mut self,
        head: &[u8],
        body: &mut Body<'_>,
        limits: &Limits,
        time: Duration,
    ) -> Result<(), ExtractError> {
        let watched = grown_beyond(self.pid, limits.memory_bytes);
        let outcome = tokio::select! {
            outcome = timeout(time, self.write(head, body)) => outcome,
            () = watched => {
                self.end().await;
                return Err(ExtractError::OutOfMemory);
            }
        };
        self.judge(outcome, limits).await
    }

    async fn write(&mut self, head: &[u8], body: &mut Body<'_>) -> io::Result<()> {
        let mut input = self.input.take().ok_or(io::ErrorKind::BrokenPipe)?;
        match body {
            Body::Bytes(body) if body.len() < JOIN_BELOW_BYTES => {
                input.write_all(&[head, &**body].concat()).await?;
            }
            Body::Bytes(body) => {
                input.write_all(head).await?;
                input.write_all(body).await?;
            }
            Body::File(file, size) => {
                input.write_all(head).await?;
                self.sending = Some(tokio::spawn(pass_on(file.try_clone().await?, *size, input)));
                return Ok(());
            }
        }
        input.flush().await?;
        self.input = Some(input);
        Ok(())
    }

    /// The next message of the reply, which may take `time` and be of `bytes_left`; after an error the process is dead.
    pub(super) async fn receive(
        &mut self,
        limits: &Limits,
        time: Duration,
        bytes_left: &mut u64,
    ) -> Result<Vec<u8>, ExtractError> {
        let watched = grown_beyond(self.pid, limits.memory_bytes);
        let outcome = tokio::select! {
            outcome = timeout(time, read(&mut self.output, bytes_left)) => outcome,
            () = watched => {
                self.end().await;
                return Err(ExtractError::OutOfMemory);
            }
        };
        self.judge(outcome, limits).await
    }

    async fn judge<T>(
        &mut self,
        outcome: Result<io::Result<T>, Elapsed>,
        limits: &Limits,
    ) -> Result<T, ExtractError> {
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(self.cause_of_death(limits).await),
            Err(_) => {
                self.end().await;
                Err(timed_out(limits))
            }
        }
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

    pub(super) fn may_be_kept(&self, last_document_bytes: u64) -> bool {
        if self.documents_read >= DOCUMENTS_PER_PROCESS || self.input.is_none() {
            return false;
        }
        last_document_bytes < CHECK_GROWTH_FROM_BYTES
            || resident_bytes(self.pid).is_some_and(|bytes| bytes < KEEP_BELOW_BYTES)
    }
}

/// Passes a file on beside what comes back of it: the process may read it piece by piece, and waits meanwhile for its
/// parts to be taken. Where the file ends too soon the input closes, which ends the process.
async fn pass_on(file: tokio::fs::File, size: u64, mut input: ChildStdin) -> io::Result<ChildStdin> {
    let sent = tokio::io::copy(&mut file.take(size), &mut input).await?;
    if sent != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    input.flush().await?;
    Ok(input)
}

async fn read(output: &mut ChildStdout, bytes_left: &mut u64) -> io::Result<Vec<u8>> {
    let length = output.read_u64_le().await?;
    *bytes_left = bytes_left
        .checked_sub(length)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "reply too long"))?;
    let mut message = Vec::new();
    output.take(length).read_to_end(&mut message).await?;
    if message.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(message)
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
