//! A static model out of an encoder, in seconds and without any text (the idea is that of model2vec, MinishLab 2024): what
//! the encoder makes of each token alone, along the directions in which these differ most (`principal`), weighted by how rare the token is.
//!
//! A vocabulary lists its tokens by frequency, more or less, so the rank in it stands for the frequency (Zipf's law).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::encoder::{Encoder, UnknownToken, normalise};
use super::local::load_encoder;
use super::matrix::Precision;
use super::model::Model;
use super::principal;
use super::static_model::{MODEL_TYPE, TENSOR};
use super::tokenizer::{LoadError, Tokenizer};

/// Tokens that go through the encoder at once.
const TOKENS_AT_ONCE: usize = 256;

/// How much more a rare token counts than a frequent one: the logarithm of its rank to this power. Found on five sets of
/// questions (docs/decisions/0010-local-embedding.md), on each of which more was better up to here.
const RARITY: i32 = 3;

/// Why there is no static model.
#[derive(Debug, thiserror::Error)]
pub enum DistillError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{dir} exists already; remove it or name another directory")]
    Exists { dir: PathBuf },
    #[error("the dimension must be from 1 to {largest}, the model's own")]
    Dimension { largest: usize },
    #[error("the tokenizer is another model's: {0}")]
    Tokenizer(String),
    #[error("{path} cannot be written: {source}")]
    Unwritable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl From<UnknownToken> for DistillError {
    fn from(error: UnknownToken) -> Self {
        Self::Tokenizer(error.to_string())
    }
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distilled {
    pub tokens: usize,
    pub dimension: usize,
}

/// Distils the model in `model_dir` into the new directory `target`, which
/// [`StaticEmbedder::load`](super::StaticEmbedder::load) reads. Takes some ten seconds of one core for all-MiniLM-L6-v2 and
/// calls `progress` with the tokens done and all of them.
pub fn distill(
    model_dir: &Path,
    target: &Path,
    dimension: usize,
    progress: impl FnMut(usize, usize),
) -> Result<Distilled, DistillError> {
    if target.exists() {
        return Err(DistillError::Exists {
            dir: target.to_owned(),
        });
    }
    let model = Model::load(model_dir)?;
    let (tokens, width) = (model.architecture.vocabulary, model.architecture.width);
    if !(1..=width).contains(&dimension) {
        return Err(DistillError::Dimension { largest: width });
    }
    let tokenizer = Tokenizer::load(&model_dir.join("tokenizer.json"))?;
    let encoder = load_encoder(model_dir, &model, Precision::F32)?;
    let vectors = token_vectors(&encoder, &tokenizer, tokens, progress)?;
    let mut vectors = principal::project(&vectors, width, dimension);
    weigh(&mut vectors, dimension, &tokenizer);
    write(model_dir, target, &vectors, dimension)?;
    Ok(Distilled { tokens, dimension })
}

/// `[tokens][width]`, each of unit length: the state of a token that stands alone.
fn token_vectors(
    encoder: &Encoder,
    tokenizer: &Tokenizer,
    tokens: usize,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<f32>, DistillError> {
    let width = encoder.dimension();
    let mut vectors = Vec::with_capacity(tokens * width);
    for first in (0..tokens).step_by(TOKENS_AT_ONCE) {
        let texts: Vec<Vec<u32>> = (first..tokens.min(first + TOKENS_AT_ONCE))
            .map(|token| tokenizer.surround(&[token as u32]))
            .collect();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let states = encoder.states(&texts)?;
        // Of each three, the one in the middle.
        for of_text in states.chunks_exact(3 * width) {
            let start = vectors.len();
            vectors.extend_from_slice(&of_text[width..2 * width]);
            normalise(&mut vectors[start..]);
        }
        progress(vectors.len() / width, tokens);
    }
    Ok(vectors)
}

/// Gives frequent tokens less weight, and none to those that stand for no text.
fn weigh(vectors: &mut [f32], dimension: usize, tokenizer: &Tokenizer) {
    let mut rank = 0_u32;
    for (token, vector) in vectors.chunks_exact_mut(dimension).enumerate() {
        let weight = if tokenizer.is_text(token as u32) {
            rank += 1;
            f64::from(rank + 1).ln().powi(RARITY) as f32
        } else {
            0.0
        };
        vector.iter_mut().for_each(|value| *value *= weight);
    }
}

/// All of it or nothing: the directory gets its name when it is whole.
fn write(model_dir: &Path, target: &Path, vectors: &[f32], dimension: usize) -> Result<(), DistillError> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    let unfinished = target.with_file_name(name);
    let written = write_files(model_dir, &unfinished, vectors, dimension)
        .and_then(|()| fs::rename(&unfinished, target))
        .map_err(|source| DistillError::Unwritable {
            path: target.to_owned(),
            source,
        });
    if written.is_err() {
        // The first failure is the one to tell.
        let _ = fs::remove_dir_all(&unfinished);
    }
    written
}

fn write_files(model_dir: &Path, dir: &Path, vectors: &[f32], dimension: usize) -> io::Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    fs::copy(model_dir.join("tokenizer.json"), dir.join("tokenizer.json"))?;
    let config = json!({
        "model_type": MODEL_TYPE,
        "architectures": ["StaticModel"],
        "hidden_dim": dimension,
        "normalize": true,
    });
    fs::write(dir.join("config.json"), config.to_string())?;
    let shape = [vectors.len() / dimension, dimension];
    let header = json!({TENSOR: {"dtype": "F32", "shape": shape, "data_offsets": [0, size_of_val(vectors)]}});
    // Tensors begin at a multiple of eight bytes.
    let mut header = header.to_string();
    header.extend(std::iter::repeat_n(
        ' ',
        header.len().next_multiple_of(8) - header.len(),
    ));
    let mut bytes = Vec::with_capacity(8 + header.len() + size_of_val(vectors));
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(vectors.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(dir.join("model.safetensors"), bytes)
}
