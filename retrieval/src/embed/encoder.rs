//! A BERT encoder on the CPU (Devlin et al., 2019; RoBERTa and XLM-R differ in where positions begin), then one vector for
//! each text (Reimers and Gurevych, "Sentence-BERT", EMNLP 2019). Weights are read once and shared by all threads.
//!
//! Texts of a batch lie one behind the other without padding: the layers that every token goes through take them all,
//! some rows at a time so that what lies between two products stays in the cache; attention takes them one by one.

use super::attention::Attention;
use super::elementwise::{AddAndNormalise, Norm};
use super::matrix::{Dense, Precision, Scratch, Then};
use super::model::{Architecture, Pooling};
use super::simd::Unit;
use super::table::Table;
use super::weights::{WeightError, Weights};

/// Rows that go through the layers behind attention together: their widest state fits into the second cache.
const ROWS_AT_ONCE: usize = 48;

pub(super) struct Encoder {
    words: Table,
    /// Of the first token and those that follow, each with that of the first and only segment added.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    heads: usize,
    dimension: usize,
    pooling: Pooling,
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

/// A token that the model was not trained with: its tokenizer is another model's.
#[derive(Debug, thiserror::Error)]
#[error("token {0} is not in the model's vocabulary")]
pub(super) struct UnknownToken(u32);

impl Encoder {
    pub(super) fn load(
        weights: &Weights,
        architecture: &Architecture,
        pooling: Pooling,
        precision: Precision,
    ) -> Result<Self, WeightError> {
        let reader = Reader {
            weights,
            prefix: ["", "bert.", "roberta."]
                .into_iter()
                .find(|prefix| weights.has(&format!("{prefix}embeddings.word_embeddings.weight")))
                .unwrap_or_default(),
            epsilon: architecture.epsilon,
            precision,
        };
        let width = architecture.width;
        let embeddings = |name: &str, rows: usize| {
            reader.values(&format!("embeddings.{name}_embeddings.weight"), &[rows, width])
        };
        let words = Table::pack(embeddings("word", architecture.vocabulary)?, width, precision);
        let mut positions = embeddings("position", architecture.positions)?;
        positions.drain(..architecture.first_position * width);
        let token_types = embeddings("token_type", architecture.token_types)?;
        for position in positions.chunks_exact_mut(width) {
            position
                .iter_mut()
                .zip(&token_types)
                .for_each(|(value, token_type)| *value += token_type);
        }
        Ok(Self {
            words,
            positions,
            norm: reader.norm("embeddings.LayerNorm", width)?,
            layers: (0..architecture.layers)
                .map(|number| reader.layer(number, architecture))
                .collect::<Result<_, _>>()?,
            heads: architecture.heads,
            dimension: width,
            pooling,
        })
    }

    pub(super) fn dimension(&self) -> usize {
        self.dimension
    }

    /// The vectors of `texts`, each a list of at least one token id and at most as many as there are positions.
    pub(super) fn embed(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, UnknownToken> {
        let states = self.states(texts)?;
        let mut rest = states.as_slice();
        let vectors = texts.iter().map(|text| {
            let (of_text, behind) = rest.split_at(text.len() * self.dimension);
            rest = behind;
            self.pool(of_text)
        });
        Ok(vectors.collect())
    }

    /// `[tokens of all texts][dimension]`, behind the last layer.
    pub(super) fn states(&self, texts: &[&[u32]]) -> Result<Vec<f32>, UnknownToken> {
        let width = self.dimension;
        let mut states = self.look_up(texts)?;
        let mut projected = vec![0.0; 3 * states.len()];
        let mut attended = vec![0.0; states.len()];
        let mut memory = Memory::default();
        for layer in &self.layers {
            for (states, projected) in states
                .chunks(ROWS_AT_ONCE * width)
                .zip(projected.chunks_mut(ROWS_AT_ONCE * 3 * width))
            {
                layer
                    .attention_in
                    .apply(states, Then::Bias, &mut memory.scratch, projected);
            }
            let mut start = 0;
            for text in texts {
                let end = start + text.len() * width;
                let projected = &projected[3 * start..3 * end];
                memory
                    .attention
                    .apply(projected, width, self.heads, &mut attended[start..end]);
                start = end;
            }
            for (states, attended) in states
                .chunks_mut(ROWS_AT_ONCE * width)
                .zip(attended.chunks(ROWS_AT_ONCE * width))
            {
                layer.behind_attention(states, attended, &mut memory);
            }
        }
        Ok(states)
    }

    /// `[tokens of all texts][dimension]`, before the first layer.
    fn look_up(&self, texts: &[&[u32]]) -> Result<Vec<f32>, UnknownToken> {
        let width = self.dimension;
        let mut states = vec![0.0; texts.iter().map(|text| text.len() * width).sum()];
        let places = texts
            .iter()
            .flat_map(|text| text.iter().zip(self.positions.chunks_exact(width)));
        for ((id, position), state) in places.zip(states.chunks_exact_mut(width)) {
            self.words.copy(*id as usize, state).ok_or(UnknownToken(*id))?;
            Unit::best().run(AddAndNormalise {
                x: state,
                y: position,
                norm: &self.norm,
            });
        }
        Ok(states)
    }

    fn pool(&self, states: &[f32]) -> Vec<f32> {
        let mut vector = states[..self.dimension].to_vec();
        if self.pooling == Pooling::Mean {
            for state in states.chunks_exact(self.dimension).skip(1) {
                vector
                    .iter_mut()
                    .zip(state)
                    .for_each(|(sum, value)| *sum += value);
            }
        }
        normalise(&mut vector);
        vector
    }
}

/// What a batch needs besides its states.
#[derive(Default)]
struct Memory {
    scratch: Scratch,
    attention: Attention,
    wide: Vec<f32>,
    narrow: Vec<f32>,
}

impl Layer {
    /// Brings some rows of states through the layer, from what they attended to.
    fn behind_attention(&self, states: &mut [f32], attended: &[f32], memory: &mut Memory) {
        let Memory {
            scratch,
            wide,
            narrow,
            ..
        } = memory;
        let rows = states.len() / self.attention_out.outputs();
        narrow.resize(states.len(), 0.0);
        wide.resize(rows * self.widen.outputs(), 0.0);
        self.attention_out.apply(attended, Then::Bias, scratch, narrow);
        Unit::best().run(AddAndNormalise {
            x: states,
            y: narrow,
            norm: &self.attention_norm,
        });
        self.widen.apply(states, Then::BiasAndGelu, scratch, wide);
        self.narrow.apply(wide, Then::Bias, scratch, narrow);
        Unit::best().run(AddAndNormalise {
            x: states,
            y: narrow,
            norm: &self.norm,
        });
    }
}

/// Reads a model's parts from its weights.
struct Reader<'a> {
    weights: &'a Weights,
    /// What some files have before every name.
    prefix: &'static str,
    epsilon: f32,
    precision: Precision,
}

impl Reader<'_> {
    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightError> {
        self.weights.values(&format!("{}{name}", self.prefix), shape)
    }

    fn layer(&self, number: usize, architecture: &Architecture) -> Result<Layer, WeightError> {
        let (width, wide) = (architecture.width, architecture.wide);
        let part = |name: &str| format!("encoder.layer.{number}.{name}");
        Ok(Layer {
            attention_in: self.attention_in(&part("attention.self"), width, architecture.heads)?,
            attention_out: self.dense(&part("attention.output.dense"), width, width)?,
            attention_norm: self.norm(&part("attention.output.LayerNorm"), width)?,
            widen: self.dense(&part("intermediate.dense"), width, wide)?,
            narrow: self.dense(&part("output.dense"), wide, width)?,
            norm: self.norm(&part("output.LayerNorm"), width)?,
        })
    }

    /// Queries, keys and values as one layer; queries are scaled here, once for all texts.
    fn attention_in(&self, name: &str, width: usize, heads: usize) -> Result<Dense, WeightError> {
        let scale = 1.0 / ((width / heads) as f32).sqrt();
        let (mut weight, mut bias) = (
            Vec::with_capacity(3 * width * width),
            Vec::with_capacity(3 * width),
        );
        for (part, scale) in [("query", scale), ("key", 1.0), ("value", 1.0)] {
            let of_part = self.values(&format!("{name}.{part}.weight"), &[width, width])?;
            weight.extend(of_part.iter().map(|value| value * scale));
            let of_part = self.values(&format!("{name}.{part}.bias"), &[width])?;
            bias.extend(of_part.iter().map(|value| value * scale));
        }
        Ok(Dense::pack(&weight, bias, width, self.precision))
    }

    fn dense(&self, name: &str, inputs: usize, outputs: usize) -> Result<Dense, WeightError> {
        let weight = self.values(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.values(&format!("{name}.bias"), &[outputs])?;
        Ok(Dense::pack(&weight, bias, inputs, self.precision))
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, WeightError> {
        Ok(Norm {
            gain: self.values(&format!("{name}.weight"), &[width])?,
            offset: self.values(&format!("{name}.bias"), &[width])?,
            epsilon: self.epsilon,
        })
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
