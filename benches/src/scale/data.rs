//! Chunks, questions and vectors of the scale measurement, made up from a number so that every run has the same.
//!
//! Texts: 120 words, of which about half are stop words, the others from a vocabulary of 200,000 by the law of Zipf and
//! Mandelbrot. Vectors: of one of two kinds, see [`Vectors`].

use retrieval::analysis::Language;
use retrieval::fuse::MIN_CANDIDATES;
use retrieval::index::{Facets, Filter, Point, SearchQuery};
use retrieval::{ChunkId, DocumentId, SourceId, TenantId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Values of a vector, as many as all-MiniLM-L6-v2 gives.
pub const DIMENSION: usize = 384;

/// Words of a chunk and of a question.
const CHUNK_WORDS: usize = 120;
const QUESTION_WORDS: usize = 10;

pub const CHUNKS_PER_DOCUMENT: u64 = 20;

const VOCABULARY: f64 = 200_000.0;

/// Flattens the frequencies of the first words, which in a language are its stop words.
const FLATTENED: f64 = 100.0;

const STOP_WORDS: &[&str] = &[
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "with", "on", "are", "by", "this",
];

/// Subjects that texts are about.
const TOPICS: u64 = 2_000;

/// Share of a vector's variance that its topic has.
const TOPIC_SHARE: f32 = 0.5;

/// Numbers below it are chunks, from it on questions.
const QUESTIONS: u64 = 1 << 40;

/// How vectors are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vectors {
    /// As a model's: around topics, the variance of the i-th principal component falling with 1/i, turned so that no
    /// value of a vector says more than another.
    Modelled,
    /// In every direction alike: no graph has it harder, and no model gives such.
    Uniform,
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// In [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Of variance 1 and mean 0, nearly normal: the sum of four bytes' worth of uniform numbers, twice.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u32 = bits.to_le_bytes().into_iter().map(u32::from).sum();
        // Eight bytes have the mean 1,020 and the standard deviation 209.
        (sum as f32 - 1_020.0) / 209.0
    }
}

/// The vector of a chunk or of a question, of unit length.
pub fn vector(kind: Vectors, number: u64) -> Vec<f32> {
    let mut random = Random::of(number);
    let mut values: Vec<f32> = match kind {
        Vectors::Uniform => (0..DIMENSION).map(|_| random.normal()).collect(),
        Vectors::Modelled => {
            let mut topic = Random::of(u64::MAX - random.next() % TOPICS);
            (0..DIMENSION)
                .map(|component| {
                    let deviation = (component as f32 + 1.0).powf(-0.5);
                    let (of_topic, own) = (topic.normal(), random.normal());
                    deviation * (TOPIC_SHARE.sqrt() * of_topic + (1.0 - TOPIC_SHARE).sqrt() * own)
                })
                .collect()
        }
    };
    if kind == Vectors::Modelled {
        turn(&mut values);
    }
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.iter_mut().for_each(|value| *value /= norm);
    values
}

/// Turns the space: a Hadamard transform of each block of 128 values after changes of sign, three times with the values
/// dealt out anew in between.
fn turn(values: &mut [f32]) {
    const BLOCK: usize = 128;
    let mut signs = Random::of(7);
    for _ in 0..3 {
        for value in values.iter_mut() {
            if signs.next() & 1 == 1 {
                *value = -*value;
            }
        }
        for block in values.chunks_exact_mut(BLOCK) {
            let mut half = 1;
            while half < BLOCK {
                for start in (0..BLOCK).step_by(2 * half) {
                    for at in start..start + half {
                        let (a, b) = (block[at], block[at + half]);
                        (block[at], block[at + half]) = (a + b, a - b);
                    }
                }
                half *= 2;
            }
        }
        let dealt: Vec<f32> = (0..values.len())
            .map(|at| values[at * 5 % values.len()])
            .collect();
        values.copy_from_slice(&dealt);
    }
}

pub fn tenant(number: u64) -> TenantId {
    TenantId(id(number + 1))
}

/// The source of one document in a hundred, or that of the others.
fn source(is_small: bool) -> SourceId {
    SourceId(id(if is_small { 2 } else { 1 }))
}

/// Whether a chunk is in the small source.
pub fn is_in_small_source(number: u64) -> bool {
    (number / CHUNKS_PER_DOCUMENT).is_multiple_of(100)
}

/// `query` about the small source alone.
pub fn narrowed(query: SearchQuery) -> SearchQuery {
    let filter = Filter {
        sources: vec![source(true)],
        ..query.filter
    };
    SearchQuery { filter, ..query }
}

pub fn chunk(tenant: u64, number: u64) -> ChunkId {
    ChunkId(id(own_number(tenant, number)))
}

/// Chunk `number` of a tenant, with its text and its vector.
pub fn point(vectors: Vectors, tenant: u64, number: u64) -> Point {
    Point {
        chunk_id: chunk(tenant, number),
        document_id: DocumentId(id(own_number(tenant, number / CHUNKS_PER_DOCUMENT))),
        source_id: source(is_in_small_source(number)),
        text: text(own_number(tenant, number), CHUNK_WORDS),
        vector: Some(chunk_vector(vectors, tenant, number)),
        facets: Facets {
            language: Some("en".to_owned()),
            ..Facets::default()
        },
    }
}

pub fn chunk_vector(vectors: Vectors, tenant: u64, number: u64) -> Vec<f32> {
    vector(vectors, own_number(tenant, number))
}

/// Question `number`, asked as the product asks it.
pub fn question(vectors: Vectors, number: u64) -> SearchQuery {
    SearchQuery {
        text: text(QUESTIONS + number, QUESTION_WORDS),
        vector: Some(question_vector(vectors, number)),
        filter: Filter {
            sources: vec![source(false), source(true)],
            ..Filter::default()
        },
        limit: MIN_CANDIDATES,
        languages: vec![Language::English],
    }
}

pub fn question_vector(vectors: Vectors, number: u64) -> Vec<f32> {
    vector(vectors, QUESTIONS + number)
}

/// The cosine of two vectors of unit length.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    // Sums side by side, which the processor makes at once.
    let mut sums = [0.0_f32; 16];
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        for at in 0..16 {
            sums[at] += a[at] * b[at];
        }
    }
    sums.iter().sum()
}

fn own_number(tenant: u64, number: u64) -> u64 {
    tenant << 24 | number
}

/// In order of their numbers, as ids are in order of time.
fn id(number: u64) -> Uuid {
    Uuid::from_u64_pair(number, Random::of(number).next())
}

fn text(seed: u64, words: usize) -> String {
    let mut random = Random::of(seed ^ 0x7e47);
    let mut text = String::with_capacity(words * 8);
    for _ in 0..words {
        if random.next().is_multiple_of(2) {
            text.push_str(STOP_WORDS[random.next() as usize % STOP_WORDS.len()]);
        } else {
            let rank = FLATTENED * ((VOCABULARY + FLATTENED) / FLATTENED).powf(random.uniform()) - FLATTENED;
            push_word(&mut text, rank as u64);
        }
        text.push(' ');
    }
    text
}

/// The word of this rank: syllables, two at least.
fn push_word(text: &mut String, rank: u64) {
    const CONSONANTS: &[u8] = b"bdfghklmnprtvz";
    const VOWELS: &[u8] = b"aeiou";
    let mut rest = rank;
    for syllable in 0.. {
        let part = rest % 70;
        text.push(char::from(CONSONANTS[part as usize / 5]));
        text.push(char::from(VOWELS[part as usize % 5]));
        rest /= 70;
        if rest == 0 && syllable >= 1 {
            return;
        }
    }
}
