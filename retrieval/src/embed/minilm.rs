//! all-MiniLM-L6-v2 and its kin on the CPU: a BERT encoder, the mean over its tokens, unit length (Reimers and Gurevych,
//! "Sentence-BERT", EMNLP 2019). Weights are read once and shared by all threads.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};

use super::tokenizer::LoadError;

pub(super) struct MiniLm {
    bert: BertModel,
    dimension: usize,
    positions: usize,
}

impl MiniLm {
    /// Reads `config.json` and `model.safetensors` of `dir`.
    pub(super) fn load(dir: &Path) -> Result<Self, LoadError> {
        let config_path = dir.join("config.json");
        let config: Config = serde_json::from_slice(&read(&config_path)?)
            .map_err(|error| LoadError::unusable(&config_path, error))?;
        let weights_path = dir.join("model.safetensors");
        let weights = read(&weights_path)?;
        let bert = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)
            .and_then(|weights| BertModel::load(weights, &config))
            .map_err(|error| LoadError::unusable(&weights_path, error))?;
        Ok(Self {
            bert,
            dimension: config.hidden_size,
            positions: config.max_position_embeddings,
        })
    }

    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// Most tokens of one text, special ones included.
    pub(super) fn positions(&self) -> usize {
        self.positions
    }

    /// The vectors of `texts`, each a list of at least one token id. Shorter texts are padded to the longest, so texts of
    /// like length belong together.
    pub(super) fn embed(&self, texts: &[&[u32]], padding: u32) -> candle_core::Result<Vec<Vec<f32>>> {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or_default();
        let shape = (texts.len(), longest);
        let padded = |fill: u32, value: &dyn Fn(u32) -> u32| -> Vec<u32> {
            let rows = texts.iter().flat_map(|text| {
                let ids = text.iter().map(|id| value(*id));
                ids.chain(std::iter::repeat_n(fill, longest - text.len()))
            });
            rows.collect()
        };
        let ids = Tensor::from_vec(padded(padding, &|id| id), shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(padded(0, &|_| 1), shape, &Device::Cpu)?;
        let states = self.bert.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let states: Vec<f32> = states.flatten_all()?.to_vec1()?;
        let of_text = states.chunks_exact(longest * self.dimension);
        Ok(of_text
            .zip(texts)
            .map(|(states, text)| self.pool(&states[..text.len() * self.dimension]))
            .collect())
    }

    /// The mean of the token states, at unit length.
    fn pool(&self, states: &[f32]) -> Vec<f32> {
        let mut sum = vec![0.0_f32; self.dimension];
        for state in states.chunks_exact(self.dimension) {
            sum.iter_mut().zip(state).for_each(|(sum, value)| *sum += value);
        }
        normalise(&mut sum);
        sum
    }
}

/// Scales to unit length; a vector of zeros stays as it is.
pub(super) fn normalise(vector: &mut [f32]) {
    let norm = vector
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt();
    if norm > 0.0 {
        vector
            .iter_mut()
            .for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, LoadError> {
    std::fs::read(path).map_err(|source| LoadError::Unreadable {
        path: path.clone(),
        source,
    })
}
