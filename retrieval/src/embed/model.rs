//! A model's directory as sentence-transformers lays it out: what `config.json` and the files beside it say of its shape,
//! of how its token states become one vector, and of what is to stand before a text.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::tokenizer::LoadError;

/// What an encoder has to be told besides its weights.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) architecture: Architecture,
    pub(super) pooling: Pooling,
    pub(super) prefixes: Prefixes,
    /// Tokens of one text that it was trained to read, special ones included.
    pub(super) max_pieces: usize,
    /// What its makers call it, where they said so.
    pub(super) name: String,
}

#[derive(Debug)]
pub(super) struct Architecture {
    pub(super) vocabulary: usize,
    pub(super) width: usize,
    /// Width between the two products behind attention.
    pub(super) wide: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) positions: usize,
    /// The position of the first token: RoBERTa and its kin keep the first ones for padding.
    pub(super) first_position: usize,
    pub(super) token_types: usize,
    pub(super) epsilon: f32,
}

/// How the states of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pooling {
    /// That of the first token.
    First,
    Mean,
}

/// What a model was trained to read before a text, such as `query: `.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefixes {
    pub query: String,
    pub document: String,
}

impl Prefixes {
    /// Whether there is nothing where `usual` has something.
    pub(super) fn lack(&self, usual: &Self) -> bool {
        let lacks = |own: &str, usual: &str| own.is_empty() && !usual.is_empty();
        lacks(&self.query, &usual.query) || lacks(&self.document, &usual.document)
    }
}

impl Model {
    /// Reads what `dir` says, and refuses what an encoder here cannot compute.
    pub(super) fn load(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("config.json");
        // What other families write there has other fields.
        let family: Family = required(&path)?;
        family
            .refuse_others()
            .map_err(|reason| LoadError::unusable(&path, reason))?;
        let config: Config = required(&path)?;
        let architecture = config
            .architecture()
            .map_err(|reason| LoadError::unusable(&path, reason))?;
        refuse_other_modules(dir)?;
        let readable = architecture.positions - architecture.first_position;
        let limits: Limits = optional(&dir.join("sentence_bert_config.json"))?.unwrap_or_default();
        let max_pieces = limits
            .max_seq_length
            .map_or(readable, |limit| limit.min(readable));
        if max_pieces <= SPECIAL_PIECES {
            return Err(LoadError::unusable(&path, "it reads no text"));
        }
        Ok(Self {
            architecture,
            pooling: pooling(dir)?,
            prefixes: prefixes(dir)?,
            max_pieces,
            name: config.name.unwrap_or_default(),
        })
    }
}

/// What the models of a family read before a text although their directories do not say so; none: nothing, or nobody knows.
/// Families are told by their names: `intfloat/multilingual-e5-small`, `e5-base-v2`.
pub(super) fn usual_prefixes(name: &str) -> Option<Prefixes> {
    let name = name.to_lowercase();
    let parts: Vec<&str> = name.split(|letter: char| !letter.is_alphanumeric()).collect();
    if !parts.contains(&"e5") {
        return None;
    }
    Some(if parts.contains(&"instruct") {
        Prefixes {
            query: "Instruct: Given a question, retrieve passages that answer it\nQuery: ".to_owned(),
            document: String::new(),
        }
    } else {
        Prefixes {
            query: "query: ".to_owned(),
            document: "passage: ".to_owned(),
        }
    })
}

/// Tokens that stand around every text.
pub(super) const SPECIAL_PIECES: usize = 2;

#[derive(Deserialize)]
struct Family {
    model_type: String,
}

impl Family {
    fn refuse_others(&self) -> Result<(), String> {
        match self.model_type.as_str() {
            "bert" | "roberta" | "xlm-roberta" | "camembert" => Ok(()),
            "model2vec" => Err("a static model, which the backend static reads".to_owned()),
            other => Err(format!(
                "a model of the type {other}; bert, roberta and xlm-roberta are supported"
            )),
        }
    }
}

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
    pad_token_id: Option<usize>,
    #[serde(rename = "_name_or_path")]
    name: Option<String>,
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl Config {
    fn architecture(&self) -> Result<Architecture, String> {
        let first_position = match self.model_type.as_str() {
            "bert" => 0,
            _ => self.pad_token_id.unwrap_or(1) + 1,
        };
        let (activation, positions) = (&self.hidden_act, &self.position_embedding_type);
        if (activation.as_str(), positions.as_str()) != ("gelu", "absolute") {
            return Err(format!(
                "{activation} and {positions} positions; gelu and absolute ones are supported"
            ));
        }
        let sizes = [
            self.hidden_size,
            self.num_attention_heads,
            self.intermediate_size,
            self.vocab_size,
            self.type_vocab_size,
        ];
        let fit = sizes.iter().all(|size| (1..=MAX_SIZE).contains(size))
            && self.num_hidden_layers <= MAX_SIZE
            && self.hidden_size.is_multiple_of(self.num_attention_heads)
            && (first_position + 1..=MAX_SIZE).contains(&self.max_position_embeddings);
        if !fit {
            return Err("sizes that do not fit together".to_owned());
        }
        Ok(Architecture {
            vocabulary: self.vocab_size,
            width: self.hidden_size,
            wide: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            positions: self.max_position_embeddings,
            first_position,
            token_types: self.type_vocab_size,
            epsilon: self.layer_norm_eps as f32,
        })
    }
}

/// No model has more of anything, and no product of two sizes overflows.
const MAX_SIZE: usize = 1 << 24;

#[derive(Default, Deserialize)]
struct Limits {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
}

/// A model may have layers of its own behind the encoder, which would change every vector.
fn refuse_other_modules(dir: &Path) -> Result<(), LoadError> {
    let path = dir.join("modules.json");
    let modules: Vec<Module> = optional(&path)?.unwrap_or_default();
    for module in modules {
        let name = module.kind.rsplit('.').next().unwrap_or_default();
        if !["Transformer", "Pooling", "Normalize"].contains(&name) {
            return Err(LoadError::unusable(
                &path,
                format!("the module {name} is not supported"),
            ));
        }
    }
    Ok(())
}

/// What is asked for in `1_Pooling`; the mean where there is no such folder.
fn pooling(dir: &Path) -> Result<Pooling, LoadError> {
    let path = dir.join("1_Pooling/config.json");
    let Some(settings) = optional::<HashMap<String, serde_json::Value>>(&path)? else {
        return Ok(Pooling::Mean);
    };
    let mut chosen: Vec<&str> = settings
        .iter()
        .filter(|(name, value)| name.starts_with("pooling_mode_") && **value == serde_json::Value::Bool(true))
        .map(|(name, _)| name.as_str())
        .collect();
    chosen.sort_unstable();
    // Later versions write the name of the mode in place of a flag for each.
    let named = settings.get("pooling_mode").and_then(serde_json::Value::as_str);
    match (named, chosen.as_slice()) {
        (Some("cls"), _) | (None, ["pooling_mode_cls_token"]) => Ok(Pooling::First),
        (Some("mean"), _) | (None, ["pooling_mode_mean_tokens"]) => Ok(Pooling::Mean),
        (named, chosen) => {
            let asked = named.map_or_else(|| chosen.join(" and "), str::to_owned);
            Err(LoadError::unusable(
                &path,
                format!("the pooling {asked:?}; cls or mean are supported"),
            ))
        }
    }
}

#[derive(Default, Deserialize)]
struct Prompts {
    #[serde(default)]
    prompts: HashMap<String, String>,
    default_prompt_name: Option<String>,
}

/// The prompts of a question and of a document by the names that sentence-transformers looks for.
fn prefixes(dir: &Path) -> Result<Prefixes, LoadError> {
    let Prompts {
        prompts,
        default_prompt_name,
    } = optional(&dir.join("config_sentence_transformers.json"))?.unwrap_or_default();
    let prompt = |names: &[&str]| {
        let default = default_prompt_name.as_deref();
        let mut names = names.iter().copied().chain(default);
        names
            .find_map(|name| prompts.get(name).filter(|prompt| !prompt.is_empty()))
            .cloned()
            .unwrap_or_default()
    };
    Ok(Prefixes {
        query: prompt(&["query"]),
        document: prompt(&["document", "passage", "corpus"]),
    })
}

/// Reads a file that a model's directory has to have.
pub(super) fn required<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let bytes = std::fs::read(path).map_err(|source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|error| LoadError::unusable(path, error))
}

fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LoadError> {
    match required(path) {
        Err(LoadError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"vocab_size": 99, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "hidden_act": "gelu", "max_position_embeddings": 34, "type_vocab_size": 1,
        "layer_norm_eps": 1e-5, "pad_token_id": 1, "model_type": "MODEL"}"#;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("1_Pooling")).expect("made");
        for (name, contents) in files {
            std::fs::write(dir.path().join(name), contents).expect("written");
        }
        dir
    }

    fn load(model_type: &str, files: &[(&str, &str)]) -> Result<Model, String> {
        let dir = dir(files);
        std::fs::write(
            dir.path().join("config.json"),
            CONFIG.replace("MODEL", model_type),
        )
        .expect("written");
        Model::load(dir.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_directory_with_a_config_alone_is_a_mean_without_prefixes() {
        let model = load("bert", &[]).expect("usable");

        assert_eq!((model.max_pieces, model.pooling), (34, Pooling::Mean));
        assert_eq!(model.prefixes, Prefixes::default());
    }

    #[test]
    fn positions_of_roberta_begin_behind_those_of_padding() {
        let model = load(
            "xlm-roberta",
            &[("sentence_bert_config.json", r#"{"max_seq_length": 512}"#)],
        );

        let model = model.expect("usable");
        assert_eq!((model.architecture.first_position, model.max_pieces), (2, 32));
    }

    #[test]
    fn what_stands_beside_the_config_counts() {
        let model = load(
            "bert",
            &[
                (
                    "1_Pooling/config.json",
                    r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#,
                ),
                ("sentence_bert_config.json", r#"{"max_seq_length": 16}"#),
                (
                    "config_sentence_transformers.json",
                    r#"{"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": null}"#,
                ),
            ],
        );

        let model = model.expect("usable");
        assert_eq!((model.max_pieces, model.pooling), (16, Pooling::First));
        assert_eq!(
            (model.prefixes.query.as_str(), model.prefixes.document.as_str()),
            ("query: ", "passage: ")
        );
    }

    #[test]
    fn models_of_a_family_that_reads_prefixes_are_known_by_their_names() {
        let usual = |name| usual_prefixes(name).map(|usual| (usual.query, usual.document));
        let of_e5 = Some(("query: ".to_owned(), "passage: ".to_owned()));

        for name in ["e5-small-v2", "intfloat/multilingual-e5-base", "My_E5"] {
            assert_eq!(usual(name), of_e5, "{name}");
        }
        for name in ["all-MiniLM-L6-v2", "bge-m3", "mle5x", ""] {
            assert_eq!(usual(name), None, "{name}");
        }
        let (query, document) = usual("multilingual-e5-large-instruct").expect("known");
        assert!(query.starts_with("Instruct: ") && document.is_empty());
    }

    #[test]
    fn a_prefix_is_missed_where_the_family_has_one() {
        let prefixes = |query: &str, document: &str| Prefixes {
            query: query.to_owned(),
            document: document.to_owned(),
        };
        let usual = prefixes("query: ", "passage: ");

        assert!(prefixes("", "").lack(&usual));
        assert!(prefixes("query: ", "").lack(&usual));
        assert!(!prefixes("Frage: ", "Text: ").lack(&usual));
        assert!(!prefixes("Instruct: ", "").lack(&prefixes("Instruct: ", "")));
    }

    #[test]
    fn a_static_model_is_named_and_not_missed_for_a_field() {
        let config = r#"{"model_type": "model2vec", "hidden_dim": 256, "normalize": true}"#;
        let dir = dir(&[("config.json", config)]);

        let refused = Model::load(dir.path()).map_err(|error| error.to_string());

        let refused = refused.expect_err("no encoder");
        assert!(refused.contains("a static model"), "{refused}");
    }

    #[test]
    fn what_would_give_other_vectors_is_refused_by_its_name() {
        let dense = r#"[{"type": "sentence_transformers.models.Dense"}]"#;
        let both = r#"{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}"#;
        let refusals = [
            (load("t5", &[]), "t5"),
            (load("bert", &[("modules.json", dense)]), "Dense"),
            (
                load("bert", &[("1_Pooling/config.json", both)]),
                "pooling_mode_cls_token and pooling_mode_max_tokens",
            ),
            (
                load(
                    "bert",
                    &[("1_Pooling/config.json", r#"{"pooling_mode": "lasttoken"}"#)],
                ),
                "lasttoken",
            ),
            (
                load(
                    "bert",
                    &[("sentence_bert_config.json", r#"{"max_seq_length": 2}"#)],
                ),
                "no text",
            ),
            (load("bert", &[("modules.json", "{")]), "modules.json"),
        ];
        for (refused, named) in refusals {
            let reason = refused.expect_err("not usable");
            assert!(reason.contains(named), "{reason} names {named}");
        }
    }
}
