//! `make bench`: what a turn costs, how fast it is and how much memory it takes, measured on the real binary.
//!
//! The server under test is a child process on one core; the scripted model, the embedding endpoint and the clients
//! are in this process, on the other cores, and do as little as they can. CPU time per turn is the figure to trust on
//! a busy machine: it does not count the time in which the server waited for a core. Nothing is asserted; figures are
//! printed beside their targets and written to `target/bench/frontdesk.json`, to be compared with the commit before.
//!
//! `target/release/frontdesk-bench --quick` takes about a minute. Other words choose parts, for example `remote ingest`;
//! `million`, which takes a quarter of an hour and 10 GB of disk, is the part `scale` with a million chunks in one tenant as well.

mod ceiling;
mod client;
mod corpus;
mod crawl;
mod files;
mod ingest;
mod load;
mod memory;
mod model;
mod report;
mod retrieval;
mod scale;
mod server;
mod setup;
mod streams;
mod turns;

use std::process::ExitCode;

use report::Report;

/// The same allocator as the server's, so that the ceiling is measured under the same conditions.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Documents that the chatbots of the turns know.
    pub documents: usize,
    /// Turns measured at each number of clients.
    pub turns: usize,
    /// The same where the local model makes each turn slower.
    pub local_turns: usize,
    pub searches: usize,
    /// Short documents of the ingest measurements.
    pub ingested: usize,
    /// Chunks of the memory measurement.
    pub chunks: usize,
    /// Documents that the local model embeds.
    pub embedded: usize,
    pub tenants: usize,
    pub starts: usize,
    /// Tokens of each of the 500 live streams.
    pub live_tokens: usize,
    /// Pages of the site that is crawled.
    pub crawled: usize,
    /// Pages of the long PDF.
    pub pdf_pages: usize,
    /// Size of the large table.
    pub csv_mb: usize,
    /// Chunks of one tenant, of an index after the other.
    pub index_sizes: &'static [u64],
    /// Tenants and chunks of each, likewise.
    pub index_tenants: &'static [(u64, u64)],
}

const FULL: Scale = Scale {
    documents: 1_000,
    turns: 4_000,
    local_turns: 800,
    searches: 3_000,
    ingested: 4_000,
    chunks: 10_000,
    embedded: 400,
    tenants: 1_000,
    starts: 7,
    live_tokens: 500,
    crawled: 5_000,
    pdf_pages: 1_000,
    csv_mb: 200,
    index_sizes: &[10_000, 100_000],
    index_tenants: &[(1_000, 1_000), (10_000, 20)],
};

const QUICK: Scale = Scale {
    documents: 200,
    turns: 600,
    local_turns: 100,
    searches: 400,
    ingested: 600,
    chunks: 2_000,
    embedded: 60,
    tenants: 60,
    starts: 3,
    live_tokens: 150,
    crawled: 600,
    pdf_pages: 200,
    csv_mb: 20,
    index_sizes: &[3_000, 10_000],
    index_tenants: &[(100, 100)],
};

/// The parts that can be chosen by name, in the order in which they run.
const PARTS: &[&str] = &[
    "start", "ceiling", "remote", "live", "local", "ingest", "crawl", "files", "memory", "scale", MILLION,
];

/// The part that takes longest: `--quick` leaves it out, unless it is named.
const MILLION: &str = "million";

/// What was asked for on the command line.
pub struct Plan {
    pub scale: Scale,
    is_full: bool,
    parts: Vec<String>,
}

impl Plan {
    fn read() -> Result<Self, String> {
        let mut plan = Self {
            scale: FULL,
            is_full: true,
            parts: Vec::new(),
        };
        for word in std::env::args().skip(1) {
            match word.as_str() {
                "--quick" => (plan.scale, plan.is_full) = (QUICK, false),
                part if PARTS.contains(&part) => plan.parts.push(word),
                _ => {
                    return Err(format!(
                        "unknown word {word:?}: --quick, or some of {}",
                        PARTS.join(", ")
                    ));
                }
            }
        }
        Ok(plan)
    }

    fn wants(&self, part: &str) -> bool {
        let is_named = self.parts.iter().any(|wanted| wanted == part);
        is_named || (self.parts.is_empty() && (self.is_full || part != MILLION))
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let done = match words.next().as_deref() {
        Some(ceiling::COMMAND) => ceiling::serve(words),
        Some(scale::COMMAND) => scale::step(words),
        _ => measure(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(&format!("the measurement broke off: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn measure() -> anyhow::Result<()> {
    let plan = Plan::read().map_err(anyhow::Error::msg)?;
    if plan.parts.iter().all(|part| part == "scale" || part == MILLION) && !plan.parts.is_empty() {
        return measure_scale(&plan);
    }
    let cores = setup::divide_cores();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clients)
        .enable_all()
        .build()?;
    let mut report = Report::new(&cores);
    let measured = runtime.block_on(measure_parts(&plan, &mut report));
    // Servers that a broken measurement left go with the runtime, and they write until then.
    drop(runtime);
    let _ = std::fs::remove_dir_all(setup::data_root());
    report.print();
    let path = report.write(&setup::target_dir()?)?;
    report::say(&format!("written to {}", path.display()));
    measured
}

/// The index alone, which has all cores.
fn measure_scale(plan: &Plan) -> anyhow::Result<()> {
    let mut report = Report::new(&setup::Cores::undivided());
    let measured = scale_parts(plan, &mut report);
    let _ = std::fs::remove_dir_all(setup::data_root());
    report.print();
    measured
}

fn scale_parts(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut sizes = plan.scale.index_sizes.to_vec();
    sizes.extend(plan.wants(MILLION).then_some(1_000_000));
    if plan.wants("scale") || plan.wants(MILLION) {
        scale::measure(&sizes, plan.scale.index_tenants, report)?;
    }
    Ok(())
}

async fn measure_parts(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let scale = &plan.scale;
    let model = model::ScriptedModel::start().await?;
    let local_model = setup::local_model_dir();
    if plan.wants("start") {
        memory::at_start(scale, &model, local_model.as_deref(), report).await?;
    }
    if plan.wants("ceiling") {
        ceiling::measure(scale, &model, report).await?;
    }
    if plan.wants("remote") || plan.wants("live") {
        let service = setup::Service::fed(setup::Embedding::Remote, &model, scale.documents).await?;
        if plan.wants("remote") {
            turns::measure(&service, "remote", scale.turns, &model, report).await?;
            retrieval::measure(&service, "remote", scale.searches, report).await?;
        }
        if plan.wants("live") {
            streams::measure(&service, scale.live_tokens, &model, report).await?;
        }
        service.stop().await?;
    }
    if let Some(folder) = local_model.filter(|_| plan.wants("local")) {
        let service = setup::Service::fed(setup::Embedding::Local(folder), &model, scale.documents).await?;
        turns::measure(&service, "local", scale.local_turns, &model, report).await?;
        retrieval::measure(&service, "local", scale.local_turns, report).await?;
        ingest::embedding_speed(&service, scale.embedded, report).await?;
        service.stop().await?;
    }
    if plan.wants("ingest") {
        ingest::measure(scale, &model, report).await?;
    }
    if plan.wants("crawl") {
        crawl::measure(scale, &model, report).await?;
    }
    if plan.wants("files") {
        files::measure(scale, &model, report).await?;
    }
    if plan.wants("memory") {
        memory::after_chunks(scale, &model, report).await?;
        memory::cold_tenants(scale, &model, report).await?;
    }
    scale_parts(plan, report)
}
