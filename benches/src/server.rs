//! The program under test as a child process: started on one core, watched through `/proc`, stopped in order.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long a start may take before it is given up.
const START_LIMIT: Duration = Duration::from_secs(60);

const STOP_LIMIT: Duration = Duration::from_secs(40);

/// A running process that has said where it listens.
pub struct Server {
    child: Child,
    pid: u32,
    pub address: SocketAddr,
    /// From before the process was made until it was ready.
    pub started_in: Duration,
}

/// Resident memory of a process and its children, in MiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub resident: f64,
    /// Pages that several processes share count in shares.
    pub proportional: f64,
}

/// A command line that runs `program` on these cores, as `taskset` names them.
pub fn pinned(program: &Path, cores: Option<String>) -> Command {
    match cores {
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.arg("--cpu-list").arg(cores).arg(program);
            command
        }
        None => Command::new(program),
    }
}

impl Server {
    /// Starts the program and waits until it prints `listening on http://…`.
    pub async fn start(
        program: &Path,
        arguments: &[OsString],
        cores: Option<String>,
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut child = pinned(program, cores)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let output = child.stdout.take().context("the child has no output")?;
        let mut lines = BufReader::new(output).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.trim().strip_prefix("listening on http://") {
                    return Ok(address.trim_end_matches('/').parse()?);
                }
            }
            bail!("the server ended before it was ready")
        };
        let address = tokio::time::timeout(START_LIMIT, ready)
            .await
            .context("the server did not start in time")??;
        let started_in = started.elapsed();
        // What it prints later must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let pid = child.id().context("the server has ended")?;
        Ok(Self {
            child,
            pid,
            address,
            started_in,
        })
    }

    /// CPU time that the process and its children, ended ones too, have used.
    pub fn cpu(&self) -> Duration {
        let ticks: u64 = family(self.pid).into_iter().map(cpu_ticks).sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for pid in family(self.pid) {
            memory.resident += kib_of(pid, "status", "VmRSS:") / 1024.0;
            memory.proportional += kib_of(pid, "smaps_rollup", "Pss:") / 1024.0;
        }
        memory
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        let pid =
            rustix::process::Pid::from_raw(i32::try_from(self.pid)?).context("a process has a number")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        tokio::time::timeout(STOP_LIMIT, self.child.wait())
            .await
            .context("the server did not stop in time")??;
        Ok(())
    }
}

/// A process with all that descend from it and still live.
fn family(root: u32) -> Vec<u32> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = stat_field(pid, 1).and_then(|parent| u32::try_from(parent).ok()) {
            parents.push((pid, parent));
        }
    }
    let mut family = vec![root];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    family
}

/// User and system time of a process and of its children that have ended.
fn cpu_ticks(pid: u32) -> u64 {
    (11..=14).filter_map(|field| stat_field(pid, field)).sum()
}

/// A field of `/proc/PID/stat`, counted from the state, which is 0; the name before it may hold anything.
fn stat_field(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(field)?.parse().ok()
}

/// A value in KiB of a file of `/proc/PID`; 0 when the process is gone.
fn kib_of(pid: u32, file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
