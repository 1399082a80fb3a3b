//! The service's side of the sandbox: keeps extractor processes, feeds them documents, buries the dead.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::parts::{DocumentParts, Exchange};
use super::process::{Body, Process};
use super::protocol::{MAX_SCANS_BYTES, RequestHead, Wanted, encode_head, max_reply_bytes};
use super::recognition::{Origin, Readers};
use crate::extract::may_hold_media;
use crate::{Account, ExtractError, ExtractedDocument, Format, FreeOfCharge, Hints, Limits, Media};

/// Idle processes end after this time, so that a service at rest holds no memory for them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Extractor processes, started when first needed, reused for many documents, at most `size` at once.
///
/// Dropping the pool ends its processes. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct ExtractorPool {
    pub(super) shared: Arc<Shared>,
    pub(super) readers: Readers,
}

#[derive(Debug)]
pub(super) struct Shared {
    program: PathBuf,
    args: Vec<String>,
    pub(super) limits: Limits,
    idle_timeout: Duration,
    slots: Arc<Semaphore>,
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
        let slots = Arc::new(Semaphore::new(size.clamp(1, Semaphore::MAX_PERMITS)));
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
            readers: Readers::default(),
        }
    }

    /// Extracts the file at `path`, within the limits of the pool.
    ///
    /// Waits for a free process. A process that dies costs this document only; if it had read others
    /// before, the document gets a second try in a fresh one, and never a third: [`ExtractError::Crashed`] is final.
    /// Dropping the future ends the process. Transcriptions are taken to be free of charge.
    pub async fn extract(
        &self,
        path: &Path,
        format: Format,
        hints: &Hints,
    ) -> Result<ExtractedDocument, ExtractError> {
        self.extract_parts(path, format, hints, &FreeOfCharge)
            .await?
            .join()
            .await
    }

    /// Like [`ExtractorPool::extract`], for a file that is in memory anyway.
    pub async fn extract_bytes(
        &self,
        bytes: &[u8],
        format: Format,
        hints: &Hints,
    ) -> Result<ExtractedDocument, ExtractError> {
        self.read(Origin::Bytes(bytes), format, hints, &FreeOfCharge)
            .await?
            .join()
            .await
    }

    /// Like [`ExtractorPool::extract`], for a document of any size: neither the file nor its text is ever held whole,
    /// but for what others recognise or transcribe, and where they do, the text of PDF files and of documents that may hold
    /// pictures and recordings.
    ///
    /// The process stays occupied until the last part was taken, or the rest is dropped; the time that the caller
    /// takes between two parts does not count. `account` pays for what is transcribed.
    pub async fn extract_parts(
        &self,
        path: &Path,
        format: Format,
        hints: &Hints,
        account: &dyn Account,
    ) -> Result<DocumentParts, ExtractError> {
        self.read(Origin::File(path), format, hints, account).await
    }

    async fn read(
        &self,
        origin: Origin<'_>,
        format: Format,
        hints: &Hints,
        account: &dyn Account,
    ) -> Result<DocumentParts, ExtractError> {
        match (format, &self.readers.ocr) {
            (Format::Picture | Format::Recording, _) => self.read_media(origin, format, account).await,
            (format, _) if may_hold_media(format) && self.media() != Media::default() => {
                self.read_with_media(origin, format, hints, account).await
            }
            (Format::Pdf, Some(ocr)) => self.read_with_scans(ocr, origin, format, hints).await,
            _ => {
                let slot = self.slot().await?;
                let body = origin.body().await?;
                let (exchange, message) = self.ask(body, format, hints, Wanted::Text).await?;
                DocumentParts::begin(exchange, message, slot).await
            }
        }
    }

    pub(super) async fn slot(&self) -> Result<OwnedSemaphorePermit, ExtractError> {
        Arc::clone(&self.shared.slots)
            .acquire_owned()
            .await
            .map_err(|_| ExtractError::Unavailable)
    }

    /// Sends a document and waits for the first message that comes of it.
    pub(super) async fn ask(
        &self,
        mut body: Body<'_>,
        format: Format,
        hints: &Hints,
        wanted: Wanted,
    ) -> Result<(Exchange, Vec<u8>), ExtractError> {
        let limits = &self.shared.limits;
        let head = RequestHead {
            wanted,
            format,
            hints: hints.clone(),
            limits: Limits {
                media: self.media(),
                ..limits.clone()
            },
            body_bytes: body.len(),
        };
        let head = encode_head(&head).map_err(|_| ExtractError::Crashed)?;
        let max_bytes = match wanted {
            Wanted::Text => max_reply_bytes(limits),
            Wanted::Scans { .. } => MAX_SCANS_BYTES,
        };
        let mut process = match &body {
            Body::Bytes(_) => self.shared.take_or_start()?,
            Body::File(..) => self.shared.start()?,
        };
        loop {
            let was_fresh = process.is_fresh();
            let mut exchange = Exchange::new(&self.shared, process, (format, body.len()), max_bytes);
            match exchange.begin(&head, &mut body).await {
                Ok(message) => return Ok((exchange, message)),
                Err(error) => {
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
            ExtractError::Unavailable
        })
    }

    pub(super) fn keep(shared: &Arc<Self>, process: Process) {
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
