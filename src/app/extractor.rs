//! The processes that read documents, as the configuration wants them.

use std::path::PathBuf;
use std::time::Duration;

use ingest::OcrOptions;
use ingest::sandbox::ExtractorPool;

use super::StartError;
use crate::config::Config;

/// Makes the pool; `program` reads documents where it is not this one.
pub(super) fn open(config: &Config, program: Option<PathBuf>) -> Result<ExtractorPool, StartError> {
    let settings = &config.extract;
    let limits = ingest::Limits {
        memory_bytes: settings.memory_mb * 1024 * 1024,
        timeout: Duration::from_secs(settings.timeout_s),
        max_pages: settings.max_pages,
        max_unpacked_bytes: settings.max_unpacked_mb * 1024 * 1024,
        ..ingest::Limits::default()
    };
    let program = match program {
        Some(program) => program,
        None => std::env::current_exe()
            .map_err(|error| StartError::Failed(format!("cannot find this program's own file: {error}")))?,
    };
    let args = vec!["extract-child".to_owned()];
    // Whoever waits for a preview does not wait for documents.
    let size = config.jobs.workers + settings.previews;
    let pool = ExtractorPool::new(program, args, size, limits);
    if settings.ocr_program.is_empty() {
        return Ok(pool);
    }
    Ok(pool.with_ocr(OcrOptions {
        program: PathBuf::from(&settings.ocr_program),
        languages: settings.ocr_languages.clone(),
        timeout: Duration::from_secs(settings.ocr_timeout_s),
    }))
}
