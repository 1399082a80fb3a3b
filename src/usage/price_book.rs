//! The price book: what a call to a model costs, by its tokens.
//!
//! Prices are micro-USD per million tokens, and all arithmetic is on integers. A call's cost is rounded up once, to a
//! whole micro-USD, so that a budget never holds less than was spent.

use std::collections::HashMap;

use serde::Deserialize;

use crate::llm::TokenUsage;

/// The built-in prices, which are also the format's manual.
pub const DEFAULTS: &str = include_str!("../../prices.default.toml");

/// Prices are per this many tokens.
const TOKENS_PER_PRICE: i128 = 1_000_000;

/// Prices of one version, found by model name.
#[derive(Debug)]
pub struct PriceBook {
    version: String,
    exact: HashMap<String, Prices>,
    /// Beginnings of names, the longest first.
    beginnings: Vec<(String, Prices)>,
}

/// Micro-USD per million tokens.
#[derive(Clone, Copy, Debug)]
struct Prices {
    input: u64,
    cached_input: u64,
    output: u64,
    embedding: u64,
    /// Per minute of a recording.
    audio_minute: u64,
    /// Micro-USD per thousand searches of a reranker.
    searches: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BookFile {
    version: String,
    #[serde(default)]
    model: Vec<ModelEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelEntry {
    name: String,
    #[serde(default)]
    input: u64,
    cached_input: Option<u64>,
    #[serde(default)]
    output: u64,
    #[serde(default)]
    embedding: u64,
    #[serde(default)]
    audio_minute: u64,
    #[serde(default)]
    searches: u64,
}

impl PriceBook {
    /// Reads the file at `path`, or the built-in book when `path` is empty. The error is a sentence for the operator.
    pub fn load(path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Self::parse(DEFAULTS);
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        Self::parse(&text).map_err(|problem| format!("{path}: {problem}"))
    }

    /// Reads a book from TOML.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: BookFile = toml::from_str(text).map_err(|error| error.to_string().trim().to_owned())?;
        if file.version.trim().is_empty() {
            return Err("version must not be empty".to_owned());
        }
        let mut book = Self {
            version: file.version,
            exact: HashMap::new(),
            beginnings: Vec::new(),
        };
        for entry in file.model {
            let prices = Prices {
                input: entry.input,
                cached_input: entry.cached_input.unwrap_or(entry.input),
                output: entry.output,
                embedding: entry.embedding,
                audio_minute: entry.audio_minute,
                searches: entry.searches,
            };
            let (beginning, is_pattern) = entry
                .name
                .strip_suffix('*')
                .map_or((entry.name.as_str(), false), |beginning| (beginning, true));
            if beginning.contains('*') || (beginning.is_empty() && !is_pattern) {
                return Err(format!(
                    "model {:?}: a name has at most one *, at its end",
                    entry.name
                ));
            }
            let known = if is_pattern {
                let known = book.beginnings.iter().any(|(other, _)| other == beginning);
                book.beginnings.push((beginning.to_owned(), prices));
                known
            } else {
                book.exact.insert(entry.name.clone(), prices).is_some()
            };
            if known {
                return Err(format!("model {:?} is listed twice", entry.name));
            }
        }
        book.beginnings
            .sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        Ok(book)
    }

    /// The book's version, kept with every cost.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether the book knows this model; otherwise its calls cost 0.
    pub fn is_priced(&self, model: &str) -> bool {
        self.find(model).is_some()
    }

    /// What a call that wrote text costs.
    pub fn cost_micro_usd(&self, model: &str, usage: &TokenUsage) -> i64 {
        let Some(prices) = self.find(model) else { return 0 };
        let cached = usage.cached.min(usage.prompt);
        price(&[
            (usage.prompt - cached, prices.input),
            (cached, prices.cached_input),
            (usage.completion, prices.output),
        ])
    }

    /// What turning `tokens` into vectors costs.
    pub fn embedding_cost_micro_usd(&self, model: &str, tokens: u64) -> i64 {
        self.find(model)
            .map_or(0, |prices| price(&[(tokens, prices.embedding)]))
    }

    /// What writing down a recording costs: by tokens where the vendor counts and the book prices them, else by its
    /// length.
    pub fn transcription_cost_micro_usd(&self, model: &str, seconds: u64, tokens: Option<(u64, u64)>) -> i64 {
        let Some(prices) = self.find(model) else { return 0 };
        match tokens {
            Some((read, written)) if prices.input > 0 || prices.output > 0 => {
                price(&[(read, prices.input), (written, prices.output)])
            }
            _ => {
                let cost = u128::from(seconds) * u128::from(prices.audio_minute);
                i64::try_from(cost.div_ceil(60)).unwrap_or(i64::MAX)
            }
        }
    }

    /// What reranking costs: by its tokens, and by its searches where the vendor bills these.
    pub fn rerank_cost_micro_usd(&self, model: &str, usage: &TokenUsage, searches: u64) -> i64 {
        let Some(prices) = self.find(model) else { return 0 };
        let by_search = u128::from(searches) * u128::from(prices.searches);
        let by_search = i64::try_from(by_search.div_ceil(1_000)).unwrap_or(i64::MAX);
        self.cost_micro_usd(model, usage).saturating_add(by_search)
    }

    fn find(&self, model: &str) -> Option<&Prices> {
        let by_beginning = || {
            self.beginnings
                .iter()
                .find(|(beginning, _)| model.starts_with(beginning.as_str()))
                .map(|(_, prices)| prices)
        };
        self.exact.get(model).or_else(by_beginning)
    }
}

/// The sum of tokens times price, rounded up, at most the largest number.
fn price(parts: &[(u64, u64)]) -> i64 {
    let sum = parts.iter().fold(0_i128, |sum, (tokens, price)| {
        sum.saturating_add(i128::from(*tokens).saturating_mul(i128::from(*price)))
    });
    i64::try_from(sum.saturating_add(TOKENS_PER_PRICE - 1) / TOKENS_PER_PRICE).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOOK: &str = r#"
        version = "test-1"
        [[model]]
        name = "small"
        input = 150000
        cached_input = 75000
        output = 600000
        [[model]]
        name = "big*"
        input = 2000000
        output = 8000000
        [[model]]
        name = "big-mini*"
        input = 1
        output = 1
        [[model]]
        name = "vectors"
        embedding = 20000
    "#;

    fn book() -> PriceBook {
        PriceBook::parse(BOOK).expect("the book is valid")
    }

    fn usage(prompt: u64, cached: u64, completion: u64) -> TokenUsage {
        TokenUsage {
            prompt,
            completion,
            cached,
            reported: true,
        }
    }

    #[test]
    fn the_built_in_book_is_valid_and_prices_dated_names() {
        let book = PriceBook::load("").expect("the built-in book is valid");

        assert!(!book.version().is_empty());
        assert!(book.is_priced("gpt-4o-mini-2024-07-18"));
        let mini = book.cost_micro_usd("gpt-4o-mini-2024-07-18", &usage(1_000_000, 0, 0));
        let full = book.cost_micro_usd("gpt-4o-2024-08-06", &usage(1_000_000, 0, 0));
        assert_eq!((mini, full), (150_000, 2_500_000));
        assert_eq!(
            book.embedding_cost_micro_usd("text-embedding-3-small", 1_000_000),
            20_000
        );
    }

    #[test]
    fn cached_tokens_are_a_part_of_the_prompt_with_a_price_of_their_own() {
        assert_eq!(
            book().cost_micro_usd("small", &usage(1_000_000, 400_000, 1_000_000)),
            90_000 + 30_000 + 600_000
        );
        assert_eq!(
            book().cost_micro_usd("big", &usage(1_000_000, 400_000, 0)),
            2_000_000,
            "without a price of their own they cost the same"
        );
    }

    #[test]
    fn a_fraction_of_a_micro_usd_is_rounded_up_once_per_call() {
        assert_eq!(book().cost_micro_usd("small", &usage(1, 0, 1)), 1);
        assert_eq!(book().cost_micro_usd("small", &usage(10, 0, 0)), 2);
        assert_eq!(book().cost_micro_usd("small", &usage(0, 0, 0)), 0);
    }

    #[test]
    fn a_recording_costs_by_its_length_or_by_its_tokens_where_these_have_a_price() {
        let book = PriceBook::parse(
            r#"version = "1"
               [[model]]
               name = "by-minute"
               audio_minute = 6000
               [[model]]
               name = "by-token"
               input = 6000000
               output = 10000000
               audio_minute = 6000"#,
        )
        .expect("a book");

        assert_eq!(book.transcription_cost_micro_usd("by-minute", 60, None), 6_000);
        assert_eq!(
            book.transcription_cost_micro_usd("by-minute", 1, Some((9, 9))),
            100
        );
        assert_eq!(book.transcription_cost_micro_usd("by-token", 60, None), 6_000);
        assert_eq!(
            book.transcription_cost_micro_usd("by-token", 60, Some((10, 3))),
            90
        );
        assert_eq!(book.transcription_cost_micro_usd("unknown", 60, None), 0);
        assert_eq!(
            book.transcription_cost_micro_usd("by-minute", u64::MAX, None),
            i64::MAX
        );
    }

    #[test]
    fn reranking_costs_by_its_searches_and_its_tokens() {
        let book = PriceBook::parse(
            r#"version = "1"
               [[model]]
               name = "by-search"
               searches = 2000000
               [[model]]
               name = "by-token"
               input = 50000"#,
        )
        .expect("a book");
        let read = usage(10_000, 0, 0);

        assert_eq!(book.rerank_cost_micro_usd("by-search", &read, 2), 4_000);
        assert_eq!(book.rerank_cost_micro_usd("by-token", &read, 1), 500);
        assert_eq!(book.rerank_cost_micro_usd("unknown", &read, 1), 0);
        assert_eq!(book.rerank_cost_micro_usd("by-search", &read, u64::MAX), i64::MAX);
    }

    #[test]
    fn an_exact_name_wins_and_then_the_longest_beginning() {
        assert_eq!(book().cost_micro_usd("big-mini-2", &usage(1_000_000, 0, 0)), 1);
        assert_eq!(
            book().cost_micro_usd("bigger", &usage(1_000_000, 0, 0)),
            2_000_000
        );
        assert!(!book().is_priced("smaller"));
        assert_eq!(book().cost_micro_usd("smaller", &usage(1_000_000, 0, 0)), 0);
    }

    #[test]
    fn a_book_with_a_mistake_is_refused_with_its_place() {
        for (text, part) in [
            ("version = \"\"", "version"),
            ("version = \"1\"\n[[model]]\nname = \"a\"\ninputs = 1", "inputs"),
            ("version = \"1\"\n[[model]]\nname = \"a\"\ninput = -1", "input"),
            ("version = \"1\"\n[[model]]\nname = \"a*b\"", "a*b"),
            (
                "version = \"1\"\n[[model]]\nname = \"a\"\n[[model]]\nname = \"a\"",
                "twice",
            ),
        ] {
            let problem = PriceBook::parse(text).expect_err("the book has a mistake");
            assert!(problem.contains(part), "{part} is missing in {problem:?}");
        }
    }

    proptest! {
        #[test]
        fn a_cost_is_never_negative_whatever_a_vendor_reports(prompt: u64, cached: u64, completion: u64) {
            prop_assert!(book().cost_micro_usd("small", &usage(prompt, cached, completion)) >= 0);
        }

        #[test]
        fn calls_booked_apart_cost_at_least_as_much_as_together_and_less_than_one_more_each(
            first in (0_u64..1_000_000, 0_u64..1_000_000), second in (0_u64..1_000_000, 0_u64..1_000_000),
        ) {
            let book = book();
            let apart = book.cost_micro_usd("small", &usage(first.0, 0, first.1)) + book.cost_micro_usd("small", &usage(second.0, 0, second.1));
            let together = book.cost_micro_usd("small", &usage(first.0 + second.0, 0, first.1 + second.1));
            prop_assert!(together <= apart && apart <= together + 1);
        }

        #[test]
        fn caching_never_makes_a_call_dearer(prompt in 0_u64..10_000_000, cached in 0_u64..10_000_000, completion in 0_u64..10_000_000) {
            let book = book();
            prop_assert!(book.cost_micro_usd("small", &usage(prompt, cached, completion)) <= book.cost_micro_usd("small", &usage(prompt, 0, completion)));
        }
    }
}
