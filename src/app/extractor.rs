//! The processes that read documents, as the configuration wants them.

use std::path::PathBuf;
use std::time::Duration;

use ingest::sandbox::ExtractorPool;
use ingest::{OcrOptions, Transcriber, TranscriptionOptions};

use super::StartError;
use crate::config::{Config, Extract};

/// Makes the pool; `program` reads documents where it is not this one, and `client` reaches what the operator configured.
pub(super) fn open(
    config: &Config,
    program: Option<PathBuf>,
    client: reqwest::Client,
) -> Result<ExtractorPool, StartError> {
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
    let mut pool = ExtractorPool::new(program, args, size, limits);
    if !settings.ocr_program.is_empty() {
        pool = pool.with_ocr(OcrOptions {
            program: PathBuf::from(&settings.ocr_program),
            languages: settings.ocr_languages.clone(),
            timeout: Duration::from_secs(settings.ocr_timeout_s),
            document_timeout: Duration::from_secs(settings.ocr_document_timeout_s),
        });
    }
    if !settings.transcription_base_url.is_empty() {
        pool = pool.with_transcription(transcriber(settings, client)?);
    }
    Ok(pool)
}

fn transcriber(settings: &Extract, client: reqwest::Client) -> Result<Transcriber, StartError> {
    let wrong = |reason: String| StartError::Setting(format!("extract.transcription_base_url: {reason}"));
    let api_key = &settings.transcription_api_key;
    let options = TranscriptionOptions {
        base_url: settings
            .transcription_base_url
            .parse()
            .map_err(|error| wrong(format!("{error}")))?,
        api_key: (!api_key.is_empty()).then(|| api_key.expose().to_owned()),
        model: settings.transcription_model.clone(),
        timeout: Duration::from_secs(settings.transcription_timeout_s),
        max_bytes: settings.transcription_max_mb * 1024 * 1024,
    };
    Transcriber::new(client, options).map_err(wrong)
}
