//! Measures the sandbox: documents a second through `N` processes, and memory of an idle one.
//! `cargo run --release -p ingest --example throughput -- PROGRAM FILE [PROCESSES]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ingest::sandbox::ExtractorPool;
use ingest::{Format, Hints, Limits};

#[expect(clippy::print_stdout, reason = "printing is what the example is for")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let program = PathBuf::from(args.next().ok_or("name the program")?);
    let file = PathBuf::from(args.next().ok_or("name a file")?);
    let processes: usize = args.next().map_or(Ok(1), |count| count.parse())?;
    let format = Format::detect(&std::fs::read(&file)?, &file.to_string_lossy())?;
    let pool = Arc::new(ExtractorPool::new(
        program,
        Vec::new(),
        processes,
        Limits::default(),
    ));
    let begin = Instant::now();
    pool.extract(&file, format, &Hints::default()).await?;
    println!(
        "first document, with the start of its process: {:?}",
        begin.elapsed()
    );

    let begin = Instant::now();
    let mut readers = Vec::new();
    for _ in 0..processes {
        let (pool, file) = (Arc::clone(&pool), file.clone());
        readers.push(tokio::spawn(async move {
            let mut count = 0_u32;
            while begin.elapsed() < Duration::from_secs(3) {
                if pool.extract(&file, format, &Hints::default()).await.is_ok() {
                    count += 1;
                }
            }
            count
        }));
    }
    let mut count = 0;
    for reader in readers {
        count += reader.await?;
    }
    println!(
        "{:.0} documents/s",
        f64::from(count) / begin.elapsed().as_secs_f64()
    );
    Ok(())
}
