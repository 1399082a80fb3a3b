//! all-MiniLM-L6-v2 and its kin on the CPU: a BERT encoder, the mean over its tokens, unit length (Reimers and Gurevych,
//! "Sentence-BERT", EMNLP 2019). Weights are read once and shared by all threads.
//!
//! Texts of a batch lie one behind the other without padding: the matrix products that every token goes through take them
//! all at once, attention takes them one by one. Products are `candle`'s; what is between them is in [`kernels`].

use std::path::Path;

use candle_core::{Device, Result, Tensor};
use serde::Deserialize;

use super::kernels::{self, Norm};
use super::tokenizer::LoadError;
use super::weights::Weights;

pub(super) struct MiniLm {
    words: Vec<f32>,
    positions: Vec<f32>,
    /// Of the first and only segment.
    token_type: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    heads: usize,
    dimension: usize,
}

/// What we need of a `config.json`.
#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
    model_type: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
}

impl Config {
    /// What we cannot compute of it.
    fn unsupported(&self) -> Option<String> {
        let Self {
            model_type,
            hidden_act,
            position_embedding_type,
            ..
        } = self;
        let known = (
            model_type.as_str(),
            hidden_act.as_str(),
            position_embedding_type.as_str(),
        );
        if known != ("bert", "gelu", "absolute") {
            return Some(format!(
                "a {model_type} with {hidden_act} and {position_embedding_type} positions"
            ));
        }
        let divides =
            self.num_attention_heads > 0 && self.hidden_size.is_multiple_of(self.num_attention_heads);
        (!divides || self.type_vocab_size == 0).then(|| "sizes that do not fit together".to_owned())
    }
}

fn absolute() -> String {
    "absolute".to_owned()
}

struct Layer {
    /// Queries, keys and values side by side.
    attention_in: Dense,
    attention_out: Dense,
    attention_norm: Norm,
    widen: Dense,
    narrow: Dense,
    norm: Norm,
}

/// `x * weight + bias`.
struct Dense {
    /// `[in][out]`: the product then reads it as it lies.
    weight: Tensor,
    bias: Vec<f32>,
}

impl MiniLm {
    /// Reads `config.json` and `model.safetensors` of `dir`.
    pub(super) fn load(dir: &Path) -> std::result::Result<Self, LoadError> {
        let config_path = dir.join("config.json");
        let config: Config = serde_json::from_slice(&read(&config_path)?)
            .map_err(|error| LoadError::unusable(&config_path, error))?;
        if let Some(unsupported) = config.unsupported() {
            return Err(LoadError::unusable(&config_path, unsupported));
        }
        let weights_path = dir.join("model.safetensors");
        let weights = Weights::open(&weights_path).map_err(|source| match source.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                LoadError::unusable(&weights_path, source)
            }
            _ => LoadError::Unreadable {
                path: weights_path.clone(),
                source,
            },
        })?;
        Self::from_weights(&weights, &config).map_err(|error| LoadError::unusable(&weights_path, error))
    }

    fn from_weights(weights: &Weights, config: &Config) -> Result<Self> {
        let width = config.hidden_size;
        let layer = |number: usize| {
            let part = |name: &str| format!("encoder.layer.{number}.{name}");
            let norm_of = |name: &str| norm(weights, &part(name), width, config.layer_norm_eps);
            let attention = ["query", "key", "value"].map(|name| part(&format!("attention.self.{name}")));
            Ok(Layer {
                attention_in: dense(weights, &attention, width, width)?,
                attention_out: dense(weights, &[part("attention.output.dense")], width, width)?,
                attention_norm: norm_of("attention.output.LayerNorm")?,
                widen: dense(
                    weights,
                    &[part("intermediate.dense")],
                    width,
                    config.intermediate_size,
                )?,
                narrow: dense(weights, &[part("output.dense")], config.intermediate_size, width)?,
                norm: norm_of("output.LayerNorm")?,
            })
        };
        let table = |name: &str, rows: usize| {
            weights.values(&format!("embeddings.{name}_embeddings.weight"), &[rows, width])
        };
        Ok(Self {
            words: table("word", config.vocab_size)?,
            positions: table("position", config.max_position_embeddings)?,
            token_type: table("token_type", config.type_vocab_size)?[..width].to_vec(),
            norm: norm(weights, "embeddings.LayerNorm", width, config.layer_norm_eps)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            heads: config.num_attention_heads,
            dimension: width,
        })
    }

    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// Most tokens of one text, special ones included.
    pub(super) fn positions(&self) -> usize {
        self.positions.len() / self.dimension
    }

    /// The vectors of `texts`, each a list of at least one token id and at most [`MiniLm::positions`].
    pub(super) fn embed(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let mut states = self.look_up(texts)?;
        for layer in &self.layers {
            let attended = self.attend(&layer.attention_in, &states, texts)?;
            let attended = layer.attention_out.product(&attended)?;
            kernels::add_and_normalise(
                &mut states,
                &attended,
                &layer.attention_out.bias,
                &layer.attention_norm,
            );
            let mut wide = layer.widen.product(&states)?;
            kernels::add_and_gelu(&mut wide, &layer.widen.bias);
            let narrow = layer.narrow.product(&wide)?;
            kernels::add_and_normalise(&mut states, &narrow, &layer.narrow.bias, &layer.norm);
        }
        let mut rest = states.as_slice();
        let vectors = texts.iter().map(|text| {
            let (of_text, behind) = rest.split_at(text.len() * self.dimension);
            rest = behind;
            self.mean(of_text)
        });
        Ok(vectors.collect())
    }

    /// `[tokens of all texts][dimension]`, before the first layer.
    fn look_up(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let width = self.dimension;
        let mut states = Vec::with_capacity(texts.iter().map(|text| text.len() * width).sum());
        for text in texts {
            for (id, position) in text.iter().zip(self.positions.chunks_exact(width)) {
                let start = *id as usize * width;
                let Some(word) = self.words.get(start..start + width) else {
                    candle_core::bail!("token {id} is not in the vocabulary");
                };
                let values = word.iter().zip(position).zip(&self.token_type);
                states.extend(values.map(|((word, position), token_type)| word + position + token_type));
            }
        }
        kernels::normalise_rows(&mut states, &self.norm);
        Ok(states)
    }

    /// What each token takes over from the others of its text.
    fn attend(&self, dense: &Dense, states: &[f32], texts: &[&[u32]]) -> Result<Vec<f32>> {
        let (heads, width) = (self.heads, self.dimension);
        let head_width = width / heads;
        let projected = dense.product(states)?;
        let mut attended = vec![0.0_f32; states.len()];
        let mut start = 0;
        for text in texts {
            let tokens = text.len();
            let rows = &projected[start * 3 * width..(start + tokens) * 3 * width];
            let shape = (heads, tokens, head_width);
            // One of queries, keys and values, head by head.
            let part = |number: usize, scale: f32| {
                let mut values = Vec::with_capacity(tokens * width);
                for head in 0..heads {
                    let column = number * width + head * head_width;
                    let bias = &dense.bias[column..column + head_width];
                    for row in rows.chunks_exact(3 * width) {
                        let of_head = row[column..column + head_width].iter().zip(bias);
                        values.extend(of_head.map(|(value, bias)| (value + bias) * scale));
                    }
                }
                Tensor::from_vec(values, shape, &Device::Cpu)
            };
            let scale = 1.0 / (head_width as f32).sqrt();
            let scores = part(0, scale)?.matmul(&part(1, 1.0)?.t()?)?;
            let mut shares: Vec<f32> = scores.flatten_all()?.to_vec1()?;
            kernels::softmax_rows(&mut shares, tokens);
            let shares = Tensor::from_vec(shares, (heads, tokens, tokens), &Device::Cpu)?;
            let taken: Vec<f32> = shares.matmul(&part(2, 1.0)?)?.flatten_all()?.to_vec1()?;
            // Back from head by head to token by token.
            let target = &mut attended[start * width..(start + tokens) * width];
            for (head, of_head) in taken.chunks_exact(tokens * head_width).enumerate() {
                for (row, values) in target
                    .chunks_exact_mut(width)
                    .zip(of_head.chunks_exact(head_width))
                {
                    row[head * head_width..(head + 1) * head_width].copy_from_slice(values);
                }
            }
            start += tokens;
        }
        Ok(attended)
    }

    /// The mean of the token states, at unit length.
    fn mean(&self, states: &[f32]) -> Vec<f32> {
        let mut sum = vec![0.0_f32; self.dimension];
        for state in states.chunks_exact(self.dimension) {
            sum.iter_mut().zip(state).for_each(|(sum, value)| *sum += value);
        }
        normalise(&mut sum);
        sum
    }
}

impl Dense {
    /// `x * weight`; the bias is left to the step that follows.
    fn product(&self, x: &[f32]) -> Result<Vec<f32>> {
        let width = self.weight.dim(0)?;
        let x = Tensor::from_slice(x, (x.len() / width, width), &Device::Cpu)?;
        x.matmul(&self.weight)?.flatten_all()?.to_vec1()
    }
}

/// The layers of these names, side by side.
fn dense(weights: &Weights, names: &[String], inputs: usize, outputs: usize) -> Result<Dense> {
    let mut parts = Vec::with_capacity(names.len());
    let mut bias = Vec::with_capacity(names.len() * outputs);
    for name in names {
        parts.push(weights.tensor(&format!("{name}.weight"), &[outputs, inputs])?);
        bias.extend(weights.values(&format!("{name}.bias"), &[outputs])?);
    }
    Ok(Dense {
        weight: Tensor::cat(&parts, 0)?.t()?.contiguous()?,
        bias,
    })
}

fn norm(weights: &Weights, name: &str, width: usize, epsilon: f64) -> Result<Norm> {
    let values = |part: &str| weights.values(&format!("{name}.{part}"), &[width]);
    Ok(Norm {
        gain: values("weight")?,
        offset: values("bias")?,
        epsilon: epsilon as f32,
    })
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

fn read(path: &Path) -> std::result::Result<Vec<u8>, LoadError> {
    std::fs::read(path).map_err(|source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    })
}
