//! What answered the questions of a run, and where that differs between two runs: their figures say something about a change
//! only to who knows what else was different.

use std::collections::{BTreeMap, BTreeSet};

use retrieval::rerank::Reranker;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::chatbots;
use crate::error::Result;
use crate::generations;
use crate::http::access::Reach;
use crate::id::{ChatbotId, SourceId, TenantId};
use crate::knowledge::chunks::Chunking;
use crate::knowledge::{SearchSettings, cuts};
use crate::secrets::token_hash;

/// What answered a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = EvalSetup)]
pub struct Setup {
    /// The embedding model, with what tells it from others of its name, such as its precision, and the length of its vectors.
    pub embedding: String,
    pub cuts: Vec<SourceCut>,
    /// Null for runs of earlier versions.
    #[serde(default)]
    pub settings: Option<AnswerSettings>,
    /// Another embedding model or another cut went live while the run was asking, or settings were changed: some of the questions
    /// were answered by that.
    pub changed_meanwhile: bool,
}

/// What a chatbot's owner and the installation had decided about answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = EvalSettings)]
pub struct AnswerSettings {
    pub min_similarity: f64,
    pub max_passages: i64,
    pub search: SearchSettings,
    /// The reranker that decided the order, and of how many passages; null: none did.
    pub reranker: Option<String>,
    pub reranked_passages: Option<usize>,
    /// The model that words answers; null: they are extracts.
    pub model: Option<String>,
    pub temperature: Option<f64>,
    /// The hash of the chatbot's own instructions: other ones have another.
    pub prompt_hash: String,
}

/// How the documents of a source were cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = EvalSourceCut)]
pub struct SourceCut {
    pub source_id: SourceId,
    pub chunking: Chunking,
}

/// What was different for the second one of two runs.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = EvalSetupDifference)]
pub struct SetupDifference {
    /// Another embedding model answered, or the same one with other weights or another precision.
    pub embedding: bool,
    /// Sources that were cut otherwise, or that one of the runs had not.
    pub cuts: Vec<CutDifference>,
    /// Settings that were others; null where one of the runs is of a version that did not note them.
    pub settings: Option<Vec<SettingDifference>>,
}

/// One setting in both runs.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = EvalSettingDifference)]
pub struct SettingDifference {
    /// As in a run's `settings`, such as `min_similarity` or `search.rerank`.
    pub name: String,
    pub before: Value,
    pub after: Value,
}

/// One source in both runs; null: it was not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EvalCutDifference)]
pub struct CutDifference {
    pub source_id: SourceId,
    pub before: Option<Chunking>,
    pub after: Option<Chunking>,
}

impl Setup {
    /// What answers the chatbot's questions now.
    pub(super) async fn now(app: &App, tenant_id: TenantId, chatbot_id: ChatbotId) -> Result<Self> {
        let embedding = generations::live_name(app, tenant_id).await?;
        let mut conn = app.db.read(tenant_id).await?;
        let cuts = cuts::list_chunkings(&mut conn, tenant_id, chatbot_id).await?;
        let cuts = cuts
            .into_iter()
            .map(|(source_id, chunking)| SourceCut { source_id, chunking });
        let chatbot = chatbots::find(&mut conn, Reach::whole(tenant_id), chatbot_id).await?;
        Ok(Self {
            embedding,
            cuts: cuts.collect(),
            settings: Some(AnswerSettings::of(app, chatbot.settings)),
            changed_meanwhile: false,
        })
    }

    /// Notes what answers `now`, when the run ends.
    pub(super) fn is_ended_with(&mut self, now: &Self) {
        let has_other_settings = self.settings.is_some() && self.settings != now.settings;
        self.changed_meanwhile |=
            self.embedding != now.embedding || self.cuts != now.cuts || has_other_settings;
    }

    /// What is different in a later run.
    pub(super) fn difference(&self, later: &Self) -> SetupDifference {
        let mut sources: BTreeMap<SourceId, (Option<&Chunking>, Option<&Chunking>)> = BTreeMap::new();
        for cut in &self.cuts {
            sources.entry(cut.source_id).or_default().0 = Some(&cut.chunking);
        }
        for cut in &later.cuts {
            sources.entry(cut.source_id).or_default().1 = Some(&cut.chunking);
        }
        let differing = sources.into_iter().filter(|(_, (before, after))| before != after);
        let cuts = differing.map(|(source_id, (before, after))| CutDifference {
            source_id,
            before: before.cloned(),
            after: after.cloned(),
        });
        SetupDifference {
            embedding: self.embedding != later.embedding,
            cuts: cuts.collect(),
            settings: self
                .settings
                .as_ref()
                .zip(later.settings.as_ref())
                .map(|(before, after)| before.difference(after)),
        }
    }
}

impl AnswerSettings {
    fn of(app: &App, decided: chatbots::Settings) -> Self {
        let reranker = app.reranker.as_deref().filter(|_| decided.search.rerank);
        let model = app.model.as_ref().map(|_| {
            let own = decided.model.as_ref();
            own.unwrap_or(&app.config.llm.model).clone()
        });
        Self {
            min_similarity: decided.min_similarity,
            max_passages: decided.max_passages,
            reranker: reranker.map(Reranker::model_id).map(str::to_owned),
            reranked_passages: reranker.map(|_| app.config.rerank.top_n),
            search: decided.search,
            model,
            temperature: decided.temperature,
            prompt_hash: token_hash(&decided.prompt),
        }
    }

    /// Settings that are others in `later`, by their names.
    fn difference(&self, later: &Self) -> Vec<SettingDifference> {
        let (mut before, mut after) = (self.by_name(), later.by_name());
        let names: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
        let mut value = |name: &str| {
            let values = [before.remove(name), after.remove(name)];
            values.map(Option::unwrap_or_default)
        };
        let differences = names.into_iter().map(|name| {
            let [before, after] = value(&name);
            SettingDifference { name, before, after }
        });
        differences
            .filter(|setting| setting.before != setting.after)
            .collect()
    }

    /// Each setting, those of searches by `search.` and their name.
    fn by_name(&self) -> BTreeMap<String, Value> {
        let mut named = BTreeMap::new();
        let fields = serde_json::to_value(self).expect("they have no keys but names");
        for (name, value) in fields.as_object().into_iter().flatten() {
            match value {
                Value::Object(fields) => {
                    let of_search = fields.iter();
                    named.extend(of_search.map(|(field, value)| (format!("{name}.{field}"), value.clone())));
                }
                value => {
                    named.insert(name.clone(), value.clone());
                }
            }
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> AnswerSettings {
        AnswerSettings {
            min_similarity: 0.4,
            max_passages: 6,
            search: SearchSettings::default(),
            reranker: None,
            reranked_passages: None,
            model: None,
            temperature: None,
            prompt_hash: String::new(),
        }
    }

    fn setup(embedding: &str, cuts: &[(SourceId, Option<u32>)]) -> Setup {
        let cut = |(source_id, max_tokens): &(SourceId, Option<u32>)| SourceCut {
            source_id: *source_id,
            chunking: Chunking {
                max_tokens: *max_tokens,
                overlap_tokens: None,
            },
        };
        Setup {
            embedding: embedding.to_owned(),
            cuts: cuts.iter().map(cut).collect(),
            settings: Some(settings()),
            changed_meanwhile: false,
        }
    }

    #[test]
    fn what_differs_is_named_and_nothing_else() {
        let (same, recut, gone, new) = (SourceId::new(), SourceId::new(), SourceId::new(), SourceId::new());
        let before = setup("words@1/64", &[(same, None), (recut, None), (gone, None)]);
        let after = setup("words@1/64", &[(same, None), (recut, Some(40)), (new, None)]);

        let difference = before.difference(&after);

        assert!(!difference.embedding);
        let mut named: Vec<SourceId> = difference.cuts.iter().map(|cut| cut.source_id).collect();
        named.sort();
        assert_eq!(named, [recut, gone, new]);
        let of = |id| {
            difference
                .cuts
                .iter()
                .find(|cut| cut.source_id == id)
                .expect("named")
        };
        assert_eq!(of(recut).after.as_ref().and_then(|cut| cut.max_tokens), Some(40));
        assert_eq!((&of(gone).after, &of(new).before), (&None, &None));
        assert!(before.difference(&setup("words@2/64", &[])).embedding);
    }

    #[test]
    fn a_run_that_ends_otherwise_than_it_began_says_so() {
        let source = SourceId::new();
        let begun = setup("words@1/64", &[(source, None)]);
        for (ended, is_mixed) in [
            (setup("words@1/64", &[(source, None)]), false),
            (setup("words@2/64", &[(source, None)]), true),
            (setup("words@1/64", &[(source, Some(40))]), true),
        ] {
            let mut run = begun.clone();
            run.is_ended_with(&ended);
            assert_eq!(run.changed_meanwhile, is_mixed, "{ended:?}");
        }
        let mut asks_more = begun.clone();
        asks_more.settings = Some(AnswerSettings {
            min_similarity: 0.5,
            ..settings()
        });
        let mut unnoted = Setup {
            settings: None,
            ..begun.clone()
        };
        let mut run = begun;
        run.is_ended_with(&asks_more);
        unnoted.is_ended_with(&asks_more);
        assert!(run.changed_meanwhile && !unnoted.changed_meanwhile);
    }

    #[test]
    fn settings_that_are_others_are_named_with_both_values() {
        let source = SourceId::new();
        let before = setup("words@1/64", &[]);
        let mut after = before.clone();
        after.settings = Some(AnswerSettings {
            min_similarity: 0.5,
            reranker: Some("order-1".to_owned()),
            search: SearchSettings {
                source_boosts: BTreeMap::from([(source, 2.0)]),
                ..SearchSettings::default()
            },
            ..settings()
        });
        let unnoted = Setup {
            settings: None,
            ..before.clone()
        };
        let difference = |name: &str, before: Value, after: Value| SettingDifference {
            name: name.to_owned(),
            before,
            after,
        };

        assert_eq!(
            before.difference(&after).settings,
            Some(vec![
                difference("min_similarity", json!(0.4), json!(0.5)),
                difference("reranker", Value::Null, json!("order-1")),
                difference(
                    "search.source_boosts",
                    json!({}),
                    json!({ source.to_string(): 2.0 })
                ),
            ])
        );
        assert_eq!(before.difference(&before).settings, Some(Vec::new()));
        assert_eq!(unnoted.difference(&after).settings, None);
    }
}
