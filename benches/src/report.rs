//! What was measured: a table on standard output, with the targets beside the figures, and JSON in a file.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Load, millis, percentile};
use crate::setup::Cores;

/// All that was measured so far.
pub struct Report {
    machine: Value,
    turns: Vec<Turns>,
    figures: Vec<Figure>,
}

/// A run of turns or searches.
pub struct Turns {
    /// Where embeddings came from, or `ceiling`.
    embeddings: &'static str,
    form: &'static str,
    clients: usize,
    count: usize,
    cpu_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    per_second: f64,
    first_token_p50_ms: Option<f64>,
    first_token_p99_ms: Option<f64>,
}

impl Turns {
    pub fn of(
        embeddings: &'static str,
        form: &'static str,
        clients: usize,
        load: &Load,
        cpu: Duration,
    ) -> Self {
        let first_token =
            |share| (!load.first_tokens_ms.is_empty()).then(|| percentile(&load.first_tokens_ms, share));
        Self {
            embeddings,
            form,
            clients,
            count: load.latencies_ms.len(),
            cpu_ms: millis(cpu) / load.latencies_ms.len() as f64,
            p50_ms: percentile(&load.latencies_ms, 0.5),
            p99_ms: percentile(&load.latencies_ms, 0.99),
            per_second: load.per_second(),
            first_token_p50_ms: first_token(0.5),
            first_token_p99_ms: first_token(0.99),
        }
    }

    fn line(&self) -> String {
        let first_token = self
            .first_token_p50_ms
            .map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        format!(
            "{:<8} {:<7} {:>7} {:>9.3} {:>9.2} {:>9.2} {:>9.0} {:>11.0} {:>12}",
            self.embeddings,
            self.form,
            self.clients,
            self.cpu_ms,
            self.p50_ms,
            self.p99_ms,
            self.per_second,
            1_000.0 / self.cpu_ms,
            first_token,
        )
    }

    fn json(&self) -> Value {
        json!({
            "embeddings": self.embeddings, "form": self.form, "clients": self.clients, "count": self.count, "cpu_ms": self.cpu_ms,
            "p50_ms": self.p50_ms, "p99_ms": self.p99_ms, "per_second": self.per_second,
            "first_token_p50_ms": self.first_token_p50_ms, "first_token_p99_ms": self.first_token_p99_ms,
        })
    }
}

/// One figure with what it should be.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {most}"),
            Self::AtLeast(least) => format!(">= {least}"),
        }
    }
}

impl Report {
    pub fn new(cores: &Cores) -> Self {
        let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu_info
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map(|model| model.trim_start_matches([' ', '\t', ':']));
        let server = if cores.server.is_some() {
            "one core of its own"
        } else {
            "shares all cores with the clients"
        };
        let machine =
            json!({ "cpu": cpu, "cores": cpu_info.matches("processor\t").count(), "server": server });
        Self {
            machine,
            turns: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Adds a run and shows it.
    pub fn turns(&mut self, turns: Turns) {
        if self.turns.is_empty() {
            say(&turns_header());
        }
        say(&turns.line());
        self.turns.push(turns);
    }

    /// Adds a figure.
    pub fn figure(&mut self, name: &str, value: f64, unit: &'static str, target: Option<Target>) {
        say(&format!("  {name}: {value:.3} {unit}"));
        self.figures.push(Figure {
            name: name.to_owned(),
            value,
            unit,
            target,
        });
    }

    /// The whole table.
    pub fn print(&self) {
        say(&format!("\ncommit {}, {}\n", commit(), self.machine));
        say(&turns_header());
        for turns in &self.turns {
            say(&turns.line());
        }
        say(&format!(
            "\n{:<62} {:>11} {:<6} {:<9}",
            "figure", "value", "", "target"
        ));
        for Figure {
            name,
            value,
            unit,
            target,
        } in &self.figures
        {
            let (wanted, verdict) = target.map_or_else(Default::default, |target| {
                (
                    target.text(),
                    if target.is_met(*value) { "met" } else { "MISSED" },
                )
            });
            say(&format!(
                "{name:<62} {value:>11.3} {unit:<6} {wanted:<9} {verdict}"
            ));
        }
    }

    /// Writes `bench/frontdesk.json` below `target`.
    pub fn write(&self, target: &Path) -> anyhow::Result<PathBuf> {
        let figure = |figure: &Figure| {
            json!({
                "name": figure.name, "value": figure.value, "unit": figure.unit, "target": figure.target.map(Target::text),
                "met": figure.target.map(|target| target.is_met(figure.value)),
            })
        };
        let report = json!({
            "commit": commit(),
            "machine": self.machine,
            "turns": self.turns.iter().map(Turns::json).collect::<Vec<_>>(),
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
        });
        let path = target.join("bench/frontdesk.json");
        std::fs::create_dir_all(target.join("bench"))?;
        std::fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
        Ok(path)
    }
}

fn turns_header() -> String {
    format!(
        "{:<8} {:<7} {:>7} {:>9} {:>9} {:>9} {:>9} {:>11} {:>12}",
        "", "", "clients", "CPU ms", "p50 ms", "p99 ms", "per s", "per core s", "1st token ms"
    )
}

/// The commit that was measured, marked when there are changes on top of it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        Command::new("git")
            .args(arguments)
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let is_changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    if is_changed {
        format!("{commit} with changes")
    } else {
        commit
    }
}

/// One line on standard output.
pub fn say(line: &str) {
    // Whoever read it may be gone: that stops no measurement.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
