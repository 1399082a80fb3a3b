//! The service's side of the sandbox: keeps extractor processes, feeds them documents, buries the dead.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::parts::{DocumentParts, Exchange};
use super::process::{Body, Process};
use super::protocol::{MAX_SCANS_BYTES, RequestHead, Wanted, decode_scans, encode_head, max_reply_bytes};
use crate::extract::Scans;
use crate::ocr::OcrOptions;
use crate::{ExtractError, ExtractedDocument, Format, Hints, Limits};

/// Files from this size on are not held in memory, but passed on as they are read, to a process of their own.
const STREAM_FROM_BYTES: u64 = 1 << 20;

/// Idle processes end after this time, so that a service at rest holds no memory for them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Extractor processes, started when first needed, reused for many documents, at most `size` at once.
///
/// Dropping the pool ends its processes. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct ExtractorPool {
    shared: Arc<Shared>,
    ocr: Option<OcrOptions>,
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
    /// before, the document gets a second try in a fresh one, and never a third: [`ExtractError::Crashed`] is final.
    /// Dropping the future ends the process.
    pub async fn extract(
        &self,
        path: &Path,
        format: Format,
        hints: &Hints,
    ) -> Result<ExtractedDocument, ExtractError> {
        self.extract_parts(path, format, hints).await?.join().await
    }

    /// Like [`ExtractorPool::extract`], for a file that is in memory anyway.
    pub async fn extract_bytes(
        &self,
        bytes: &[u8],
        format: Format,
        hints: &Hints,
    ) -> Result<ExtractedDocument, ExtractError> {
        let slot = self.slot().await?;
        self.read_bytes(slot, bytes, format, hints).await?.join().await
    }

    /// Like [`ExtractorPool::extract`], for a document of any size: neither the file nor its text is ever held whole.
    ///
    /// The process stays occupied until the last part was taken, or the rest is dropped; the time that the caller
    /// takes between two parts does not count.
    pub async fn extract_parts(
        &self,
        path: &Path,
        format: Format,
        hints: &Hints,
    ) -> Result<DocumentParts, ExtractError> {
        let slot = self.slot().await?;
        let cannot_open = |error: io::Error| {
            // A file that is not there may have been replaced meanwhile: the caller knows.
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!(%error, "a stored document cannot be opened");
            }
            ExtractError::Unavailable
        };
        let file = tokio::fs::File::open(path).await.map_err(cannot_open)?;
        let size = file.metadata().await.map_err(cannot_open)?.len();
        // The images of scanned pages are asked for afterwards, so the file has to stay at hand.
        let may_be_scanned = self.ocr.is_some() && format == Format::Pdf;
        if size >= STREAM_FROM_BYTES && !may_be_scanned {
            let body = Body::File(file, size);
            let (exchange, message) = self.ask(body, format, hints, Wanted::Text).await?;
            return DocumentParts::begin(exchange, message, slot).await;
        }
        drop(file);
        let body = tokio::fs::read(path).await.map_err(cannot_open)?;
        self.read_bytes(slot, &body, format, hints).await
    }

    /// Reads a document that is in memory, scanned pages too.
    async fn read_bytes(
        &self,
        slot: OwnedSemaphorePermit,
        body: &[u8],
        format: Format,
        hints: &Hints,
    ) -> Result<DocumentParts, ExtractError> {
        let asked = self.ask(Body::Bytes(body), format, hints, Wanted::Text).await;
        let Some(ocr) = self.ocr.as_ref().filter(|_| format == Format::Pdf) else {
            let (exchange, message) = asked?;
            return DocumentParts::begin(exchange, message, slot).await;
        };
        let whole = match asked {
            Ok((exchange, message)) => DocumentParts::join_all(exchange, message).await,
            Err(error) => Err(error),
        };
        let scans = |after| self.scans(body, format, hints, after);
        let document = ocr.complete(whole, &self.shared.limits, scans).await?;
        drop(slot);
        Ok(DocumentParts::of(document))
    }

    /// The images of the next scanned pages after page `after`.
    async fn scans(
        &self,
        body: &[u8],
        format: Format,
        hints: &Hints,
        after: u32,
    ) -> Result<Scans, ExtractError> {
        let wanted = Wanted::Scans { after };
        let (exchange, message) = self.ask(Body::Bytes(body), format, hints, wanted).await?;
        let scans = decode_scans(&message).unwrap_or_else(|error| {
            tracing::warn!(%error, "an extractor gave a reply that cannot be read");
            Err(ExtractError::Crashed)
        });
        // A panic may leave anything behind.
        if !matches!(scans, Err(ExtractError::Crashed)) {
            exchange.end();
        }
        scans
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, ExtractError> {
        Arc::clone(&self.shared.slots)
            .acquire_owned()
            .await
            .map_err(|_| ExtractError::Unavailable)
    }

    /// Sends a document and waits for the first message that comes of it.
    async fn ask(
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
            limits: limits.clone(),
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
