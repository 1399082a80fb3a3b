//! The extractor process: limits itself, then serves requests on stdin and stdout until end of input.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::process::STREAM_FROM_BYTES;
use super::protocol::{Part, Reply, Wanted, encode_reply, encode_scans, pass_over, read_body, read_head};
use crate::extract::{extract_stream, is_streamed};
use crate::part::{self, PartOutlet};
use crate::{ExtractError, ExtractedDocument, Format, Hints, Limits};

/// Standard input, output and error; with this many allowed, no further file or socket can be opened.
const OPEN_FILES: u64 = 3;

/// What the hidden subcommand runs. Ends with success at end of input.
pub fn child_main() -> ExitCode {
    child_main_with(crate::extract)
}

/// [`child_main`] with another reader in place of [`extract`](crate::extract).
pub fn child_main_with<F>(extract: F) -> ExitCode
where
    F: Fn(&[u8], Format, &Hints, &Limits) -> Result<ExtractedDocument, ExtractError>,
{
    std::panic::set_hook(Box::new(|panic| {
        // The message may quote the document, the place never does.
        if let Some(place) = panic.location() {
            let _ = writeln!(io::stderr(), "panicked at {}:{}", place.file(), place.line());
        }
    }));
    match serve(extract) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "extractor ends: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve<F>(extract: F) -> io::Result<()>
where
    F: Fn(&[u8], Format, &Hints, &Limits) -> Result<ExtractedDocument, ExtractError>,
{
    die_with_the_parent()?;
    let mut input = io::BufReader::with_capacity(64 << 10, io::stdin().lock());
    let mut limited = false;
    while let Some(head) = read_head(&mut input)? {
        let is_streamed = head.body_bytes >= STREAM_FROM_BYTES
            && matches!(head.wanted, Wanted::Text)
            && is_streamed(head.format);
        let body = if is_streamed {
            Vec::new()
        } else {
            read_body(&mut input, &head)?
        };
        if !limited {
            limit_process(&head.limits, body.len() as u64)?;
            limited = true;
        }
        limit_cpu(head.limits.timeout)?;
        let (format, hints, limits) = (head.format, &head.hints, &head.limits);
        let reply = match head.wanted {
            Wanted::Text if is_streamed => {
                let size = head.body_bytes;
                let mut body = input.by_ref().take(size);
                let outcome = in_parts(|| extract_stream(&mut body, size, format, hints, limits));
                pass_over(body)?;
                encode_reply(&outcome)?
            }
            Wanted::Text => encode_reply(&in_parts(|| extract(&body, format, hints, limits)))?,
            Wanted::Scans { after } => {
                let read = || crate::extract::scans(&body, format, hints, limits, after);
                let scans = catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(ExtractError::Crashed));
                encode_scans(&scans)?
            }
        };
        send(&reply)?;
    }
    Ok(())
}

/// Reads a document and sends its parts as they come, but for the last one.
fn in_parts(read: impl FnOnce() -> Result<ExtractedDocument, ExtractError>) -> Reply {
    // The first builder is the whole document's: what is inside of it is built later.
    let read = || PartOutlet::during(send_part, read);
    let outcome = catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(ExtractError::Crashed));
    outcome.map(|document| Part {
        document: part::split(document, send_part),
        is_last: true,
    })
}

/// Sends a part that is not the last one. Nobody is left to read for when that fails.
fn send_part(document: ExtractedDocument) {
    let part = Part {
        document,
        is_last: false,
    };
    if let Err(error) = encode_reply(&Ok(part)).and_then(|part| send(&part)) {
        let _ = writeln!(io::stderr(), "extractor ends: {error}");
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

fn send(message: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(message)?;
    output.flush()
}

/// Ends this process as soon as nobody holds the other end of stdin, also in the middle of a document.
///
/// The kernel's parent-death signal is no help: it fires when the thread that spawned us ends, and an
/// async runtime ends threads while the service lives on.
fn die_with_the_parent() -> io::Result<()> {
    let (started, starts) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("parent-watch".to_owned())
        .stack_size(64 << 10)
        .spawn(move || {
            let stdin = io::stdin();
            // The last of what this thread allocates.
            let _ = started.send(());
            drop(started);
            loop {
                let mut watched = [PollFd::new(&stdin, PollFlags::empty())];
                match poll(&mut watched, None) {
                    Ok(_) if watched[0].revents().contains(PollFlags::HUP) => break,
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                }
            }
            // Requests may be waiting in the pipe, but nobody waits for their replies.
            let _ = kill_process(getpid(), Signal::KILL);
        })?;
    // With its first allocation a thread reserves tens of megabytes of address space. Between counting what is reserved
    // and setting the limit that would be taken from what the documents may have.
    starts.recv().map_err(io::Error::other)
}

/// Takes away what reading a document does not need. Lasts for the life of the process.
fn limit_process(limits: &Limits, body_bytes: u64) -> io::Result<()> {
    // The allocator may have reserved address space already, which costs nothing and must not count.
    let reserved = address_space_bytes()?.saturating_sub(body_bytes);
    let memory = reserved.saturating_add(limits.memory_bytes);
    set_both(Resource::As, memory)?;
    set_both(Resource::Core, 0)?;
    set_both(Resource::Fsize, 0)?;
    set_both(Resource::Nofile, OPEN_FILES)?;
    set_both(Resource::Nproc, 0)
}

/// Allows CPU time for one more document. The parent's clock usually strikes first; this one still counts
/// when the parent is too busy to look.
fn limit_cpu(timeout: Duration) -> io::Result<()> {
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec.max(0) as u64;
    let allowed = used + timeout.as_secs() + 2;
    let maximum = getrlimit(Resource::Cpu).maximum;
    Ok(setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(allowed),
            maximum,
        },
    )?)
}

fn set_both(resource: Resource, value: u64) -> io::Result<()> {
    // A limit that is already lower, set by the operator, stays.
    let value = getrlimit(resource)
        .maximum
        .map_or(value, |maximum| maximum.min(value));
    Ok(setrlimit(
        resource,
        Rlimit {
            current: Some(value),
            maximum: Some(value),
        },
    )?)
}

fn address_space_bytes() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm
        .split_whitespace()
        .next()
        .and_then(|pages| pages.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable /proc/self/statm"))?;
    Ok(pages * rustix::param::page_size() as u64)
}
