//! What this process itself uses: processor time, memory, disk.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Processor time of all threads so far.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Waits until the process used less than `share` of a core for `time`.
pub async fn rest(time: Duration, share: f64) {
    loop {
        let (started, cpu) = (Instant::now(), cpu_seconds());
        tokio::time::sleep(time).await;
        if cpu_seconds() - cpu < share * started.elapsed().as_secs_f64() {
            return;
        }
    }
}

/// Resident memory in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// With the pages of mapped files that were touched.
    pub resident: f64,
    /// Without them: the system cannot take these back.
    pub own: f64,
    /// The most that was ever resident.
    pub most: f64,
}

impl Memory {
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap_or_default() / 1024.0
        };
        Self {
            resident: mib("VmRSS:"),
            own: mib("RssAnon:"),
            most: mib("VmHWM:"),
        }
    }
}

/// What the files below `dir` take on the disk.
pub fn disk_mib(dir: &Path) -> f64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_mib(&entry.path()),
        Ok(metadata) => metadata.blocks() as f64 * 512.0 / f64::from(1 << 20),
        Err(_) => 0.0,
    });
    sizes.sum()
}
