//! The embedded index at scale: how storing, searching, memory and recall grow with the chunks of one tenant and with the
//! number of tenants. Embedding is left out: vectors are made up (`data`).
//!
//! One process stores, another one searches, so that its memory is that of a server which was started on the index. Both
//! share the cores with nobody else of this program. A third one deletes a document, and waits until the files have forgotten it.

mod ask;
mod build;
mod data;
mod forget;
mod own;
mod plot;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::ask::Asked;
use self::build::{Built, Plan};
use self::data::Vectors;
use self::forget::Forgotten;
use crate::report::{Report, Target, say};
use crate::setup;

/// The word that turns this program into one of the measurement's processes.
pub const COMMAND: &str = "scale-step";

/// Searches of each kind.
const QUESTIONS: u64 = 500;

/// One index that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub built: Built,
    pub asked: Asked,
    pub forgotten: Forgotten,
}

/// Measures one tenant of each of `sizes` chunks, and many tenants.
pub fn measure(sizes: &[u64], tenants: &[(u64, u64)], report: &mut Report) -> anyhow::Result<()> {
    let one = |chunks: &u64| plan(1, *chunks, Vectors::Modelled);
    let many = |(tenants, chunks): &(u64, u64)| plan(*tenants, *chunks, Vectors::Modelled);
    let hard = sizes.iter().filter(|chunks| **chunks == HARD_CHUNKS);
    let hard = hard.map(|chunks| plan(1, *chunks, Vectors::Uniform));
    let plans = sizes.iter().map(one).chain(tenants.iter().map(many)).chain(hard);
    let mut measured = Vec::new();
    for plan in plans {
        let one = measure_one(plan)?;
        figures(&one, report);
        measured.push(one);
    }
    let dir = setup::target_dir()?.join("bench");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("scale.json"), serde_json::to_vec_pretty(&measured)?)?;
    std::fs::write(dir.join("scale.md"), table(&measured))?;
    let curve: Vec<&Measured> = measured.iter().filter(|one| one.is_on_the_curve()).collect();
    plot::draw(&dir.join("scale.svg"), &curve)?;
    say(&format!(
        "{}\ncurves in {}",
        table(&measured),
        dir.join("scale.svg").display()
    ));
    Ok(())
}

/// Vectors without any structure are measured at this size.
const HARD_CHUNKS: u64 = 100_000;

fn plan(tenants: u64, chunks: u64, vectors: Vectors) -> Plan {
    Plan {
        tenants,
        chunks,
        vectors,
    }
}

impl Measured {
    fn is_on_the_curve(&self) -> bool {
        self.built.plan.tenants == 1 && self.built.plan.vectors == Vectors::Modelled
    }
}

/// Stores and asks, in processes of their own.
fn measure_one(plan: Plan) -> anyhow::Result<Measured> {
    std::fs::create_dir_all(setup::data_root())?;
    let dir = tempfile::tempdir_in(setup::data_root())?;
    let vectors = serde_json::to_value(plan.vectors)?;
    let vectors = vectors.as_str().context("kinds of vectors have names")?;
    let (tenants, chunks) = (plan.tenants.to_string(), plan.chunks.to_string());
    let built = run(dir.path(), "build", &[&tenants, &chunks, vectors])?;
    let asked = run(dir.path(), "ask", &[&QUESTIONS.to_string()])?;
    let forgotten = run(dir.path(), "forget", &[])?;
    Ok(Measured {
        built,
        asked,
        forgotten,
    })
}

fn run<T: DeserializeOwned>(dir: &Path, step: &str, words: &[&str]) -> anyhow::Result<T> {
    let output = Command::new(std::env::current_exe()?)
        .args([COMMAND, step])
        .arg(dir)
        .args(words)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the step {step} {words:?} failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Figures that have targets, and what explains them.
fn figures(measured: &Measured, report: &mut Report) {
    let Measured {
        built,
        asked,
        forgotten,
    } = measured;
    let Plan {
        tenants,
        chunks,
        vectors,
    } = built.plan;
    let what = match vectors {
        Vectors::Modelled => format!("index of {tenants} x {chunks}"),
        Vectors::Uniform => format!("index of {tenants} x {chunks}, uniform"),
    };
    let mut figure =
        |name: &str, value, unit, target| report.figure(&format!("{what}: {name}"), value, unit, target);
    figure(
        "upserts",
        built.upserts_per_second,
        "/s",
        Some(Target::AtLeast(5_000.0)),
    );
    let (p95, p99) = match (tenants, chunks) {
        (1, 100_000) => (Some(Target::AtMost(6.0)), None),
        (1, 1_000_000) => (Some(Target::AtMost(25.0)), None),
        (1_000, 1_000) => (None, Some(Target::AtMost(2.0))),
        _ => (None, None),
    };
    figure("first hybrid searches, p99", asked.first.p99_ms, "ms", None);
    figure("hybrid search, p95", asked.hybrid.p95_ms, "ms", p95);
    figure("hybrid search, p99", asked.hybrid.p99_ms, "ms", p99);
    figure("hybrid search, CPU", asked.hybrid.cpu_ms, "ms", None);
    let recall = (vectors == Vectors::Modelled).then_some(Target::AtLeast(0.95));
    figure("recall@10 by meaning", asked.recall_at_10, "", recall);
    figure(
        "in a hundredth of it: hybrid search, CPU",
        asked.in_small.cpu_ms,
        "ms",
        None,
    );
    figure(
        "in a hundredth of it: hybrid search, p95",
        asked.in_small.p95_ms,
        "ms",
        None,
    );
    figure(
        "in a hundredth of it: recall@10 by meaning",
        asked.recall_in_small,
        "",
        recall,
    );
    let memory = (chunks == 1_000_000).then_some(Target::AtMost(1_430.0));
    figure("memory after searching", asked.memory, "MiB", memory);
    figure("until files forget a document", forgotten.took_s, "s", None);
    figure("the same, CPU", forgotten.cpu_s, "s", None);
    figure(
        "meanwhile: hybrid search, p95",
        forgotten.hybrid.p95_ms,
        "ms",
        None,
    );
    figure(
        "afterwards: recall@10 by meaning",
        forgotten.recall_after,
        "",
        recall,
    );
}

/// The table of the documentation.
fn table(measured: &[Measured]) -> String {
    let mut table = "| tenants x chunks | upserts, CPU each | graphs after | hybrid p50 / p95 / p99 | CPU of it | first ones, p50 / p99 | by words, CPU | by meaning, CPU | recall@10 | memory, own part | on disk | opening | forgetting, CPU, p95 meanwhile |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for Measured {
        built,
        asked,
        forgotten,
    } in measured
    {
        let uniform = if built.plan.vectors == Vectors::Uniform {
            ", uniform"
        } else {
            ""
        };
        table.push_str(&format!(
            "| {} x {}{uniform} | {:.0} /s, {:.0} µs | {:.0} s | {:.1} / {:.1} / {:.1} ms | {:.2} ms | {:.1} / {:.1} ms | {:.2} ms | {:.2} ms | {:.3} | {:.0}, {:.0} MiB | {:.0} MiB | {:.0} ms | {:.0} s, {:.0} s, {:.1} ms |\n",
            built.plan.tenants,
            built.plan.chunks,
            built.upserts_per_second,
            built.upsert_cpu_us,
            built.settled_in_s,
            asked.hybrid.p50_ms,
            asked.hybrid.p95_ms,
            asked.hybrid.p99_ms,
            asked.hybrid.cpu_ms,
            asked.first.p50_ms,
            asked.first.p99_ms,
            asked.by_words.cpu_ms,
            asked.by_meaning.cpu_ms,
            asked.recall_at_10,
            asked.memory,
            asked.memory_own,
            built.disk_mib,
            asked.opened_in_ms,
            forgotten.took_s,
            forgotten.cpu_s,
            forgotten.hybrid.p95_ms,
        ));
    }
    table
}

/// Runs one process of the measurement: `build DIR TENANTS CHUNKS modelled|uniform`, `ask DIR QUESTIONS` or `forget DIR`; or draws again
/// what several indexes gave: `draw FILE DIR...`.
pub fn step(words: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let words: Vec<String> = words.collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["build", dir, tenants, chunks, vectors] => {
            let plan = Plan {
                tenants: tenants.parse()?,
                chunks: chunks.parse()?,
                vectors: serde_json::from_value((*vectors).into())?,
            };
            let mut built = runtime.block_on(build::build(&PathBuf::from(dir), plan))?;
            built.nearest.clear();
            built.nearest_in_small.clear();
            say(&serde_json::to_string(&built)?);
        }
        ["ask", dir, questions] => {
            let asked = runtime.block_on(ask::ask(Path::new(dir), questions.parse()?))?;
            std::fs::write(Path::new(dir).join("asked.json"), serde_json::to_vec(&asked)?)?;
            say(&serde_json::to_string(&asked)?);
        }
        ["forget", dir] => {
            let forgotten = runtime.block_on(forget::forget(Path::new(dir)))?;
            std::fs::write(
                Path::new(dir).join("forgotten.json"),
                serde_json::to_vec(&forgotten)?,
            )?;
            say(&serde_json::to_string(&forgotten)?);
        }
        ["draw", file, dirs @ ..] => {
            let read = |dir: &&str| -> anyhow::Result<Measured> {
                let dir = Path::new(dir);
                let asked = std::fs::read(dir.join("asked.json"))?;
                let forgotten = std::fs::read(dir.join("forgotten.json"))?;
                Ok(Measured {
                    built: build::read(dir)?,
                    asked: serde_json::from_slice(&asked)?,
                    forgotten: serde_json::from_slice(&forgotten)?,
                })
            };
            let measured = dirs.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
            let curve: Vec<&Measured> = measured.iter().filter(|one| one.is_on_the_curve()).collect();
            plot::draw(Path::new(file), &curve)?;
            say(&table(&measured));
        }
        _ => anyhow::bail!("unknown step {words:?}"),
    }
    Ok(())
}
