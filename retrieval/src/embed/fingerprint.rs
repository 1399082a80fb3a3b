//! What tells a model's weights from others under the same name: vectors of two fingerprints are never comparable.
//!
//! Weights are sampled, so that a start does not read them twice: their description, the beginning and the end of every
//! tensor, and 64 bytes of every 64 KiB. Training, distilling, merging, quantising or converting a model changes these;
//! an edit of single values in between, made by hand, is not seen. The tokenizer counts whole.

use std::fmt::Write as _;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

use super::matrix::Precision;
use super::model::{Model, Pooling, Prefixes};
use super::tokenizer::LoadError;
use super::weights::Weights;

/// Bytes of the digest that are told: 96 bits are unique among all models there will be.
const TOLD_BYTES: usize = 12;

/// Of a model's directory, and of what else its vectors depend on.
pub(super) fn of_directory(dir: &Path, settings: &str) -> Result<String, LoadError> {
    let mut hash = Context::new(&SHA256);
    hash.update(settings.as_bytes());
    let path = dir.join("tokenizer.json");
    let tokenizer = std::fs::read(&path).map_err(|source| LoadError::Unreadable { path, source })?;
    hash.update(&(tokenizer.len() as u64).to_le_bytes());
    hash.update(&tokenizer);
    let path = dir.join("model.safetensors");
    Weights::load(&path)?
        .sample(|bytes| hash.update(bytes))
        .map_err(|source| LoadError::Unreadable { path, source })?;
    let digest = hash.finish();
    let told = digest.as_ref().iter().take(TOLD_BYTES);
    Ok(told.fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// What the vectors of an encoder depend on besides its weights.
pub(super) fn encoder_settings(model: &Model, prefixes: &Prefixes, precision: Precision) -> String {
    let pooling = match model.pooling {
        Pooling::First => "first",
        Pooling::Mean => "mean",
    };
    let shape = &model.architecture;
    format!(
        "encoder {} {pooling} heads {} first {} epsilon {} pieces {} query {:?} document {:?}\n",
        precision_name(precision),
        shape.heads,
        shape.first_position,
        shape.epsilon,
        model.max_pieces,
        prefixes.query,
        prefixes.document,
    )
}

/// What the vectors of a static model depend on besides its table.
pub(super) fn static_settings(precision: Precision) -> String {
    format!("static {}\n", precision_name(precision))
}

fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Int8 => "int8",
    }
}
