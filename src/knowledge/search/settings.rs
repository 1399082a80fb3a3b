//! What a chatbot's owner decides about the passages that a search chooses.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::http::input::present;
use crate::id::{ChatbotId, SourceId, TenantId};
use crate::knowledge::sources;

/// Sources of one chatbot that may be preferred or put back.
const MAX_BOOSTS: usize = 200;

/// How passages are chosen. In this form it is kept with the chatbot: a field that it does not have is as it is by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SearchSettings {
    /// Whether an answer does without a passage that says nothing which a better one does not say already.
    pub leave_out_repetitions: bool,
    /// 1: passages are chosen by how near they are alone. Less: also by how little they have in common with those chosen
    /// before (maximal marginal relevance), down to 0, where only that counts.
    #[schema(minimum = 0, maximum = 1)]
    pub mmr_lambda: f64,
    /// After so many days half of the part of a passage's score that age decides is gone; null: age decides nothing. A
    /// document is as old as it says, or else as it is here.
    #[schema(minimum = 1, maximum = 36_500)]
    pub recency_half_life_days: Option<i64>,
    /// The part of the score that age decides.
    #[schema(minimum = 0, maximum = 1)]
    pub recency_weight: f64,
    /// By what the scores of a source's passages are multiplied, by the source's id; 1 where nothing is said.
    #[schema(value_type = BTreeMap<String, f64>)]
    pub source_boosts: BTreeMap<SourceId, f64>,
    /// Whether the installation's reranker decides the order, where there is one.
    pub rerank: bool,
    /// Tokens of what stands around the passages, put into a prompt with them as far as there is room: the chunks next to
    /// them, then the rest of their section, then that of the section above.
    #[schema(minimum = 0, maximum = 100_000)]
    pub context_tokens: i64,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self {
            leave_out_repetitions: true,
            mmr_lambda: 1.0,
            recency_half_life_days: None,
            recency_weight: 0.5,
            source_boosts: BTreeMap::new(),
            rerank: true,
            context_tokens: 0,
        }
    }
}

impl SearchSettings {
    /// What must hold, whoever sets it.
    pub fn check(&self) -> Result<()> {
        let invalid = |field: &str, message: &str| {
            let path = format!("search.{field}");
            let message = format!("{path} must {message}");
            Err(Error::invalid("invalid_search_settings", &path, message))
        };
        if !(0.0..=1.0).contains(&self.mmr_lambda) {
            return invalid("mmr_lambda", "be 0 to 1");
        }
        if self
            .recency_half_life_days
            .is_some_and(|days| !(1..=36_500).contains(&days))
        {
            return invalid("recency_half_life_days", "be 1 to 36500, or null");
        }
        if !(0.0..=1.0).contains(&self.recency_weight) {
            return invalid("recency_weight", "be 0 to 1");
        }
        if self.source_boosts.len() > MAX_BOOSTS {
            return invalid("source_boosts", "name at most 200 sources");
        }
        if self
            .source_boosts
            .values()
            .any(|factor| !(0.1..=10.0).contains(factor))
        {
            return invalid("source_boosts", "have factors of 0.1 to 10");
        }
        if !(0..=100_000).contains(&self.context_tokens) {
            return invalid("context_tokens", "be 0 to 100000");
        }
        Ok(())
    }

    /// Whether the chatbot has all sources that these settings name and that `before` did not: one that was deleted since does
    /// not hinder another change.
    pub async fn check_sources(
        &self,
        conn: &mut Conn,
        (tenant_id, chatbot_id): (TenantId, ChatbotId),
        before: &Self,
    ) -> Result<()> {
        let new = |id: &&SourceId| !before.source_boosts.contains_key(*id);
        let mut absent: Vec<SourceId> = self.source_boosts.keys().filter(new).copied().collect();
        if absent.is_empty() {
            return Ok(());
        }
        let present = sources::store::list_ids(conn, tenant_id, chatbot_id).await?;
        absent.retain(|id| !present.contains(id));
        if absent.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = absent.iter().map(SourceId::to_string).collect();
        let message = format!(
            "search.source_boosts names sources that this chatbot does not have: {}",
            named.join(", ")
        );
        Err(Error::invalid("unknown_source", "search.source_boosts", message))
    }
}

/// New settings of choosing passages. What is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchSettingsRequest {
    /// Whether an answer does without a passage that says nothing which a better one does not say already; true unless given.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    leave_out_repetitions: Option<bool>,
    /// 1, the default: passages are chosen by how near they are alone. Less: also by how little they have in common with
    /// those chosen before (maximal marginal relevance), down to 0, where only that counts.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = f64, required = false, minimum = 0, maximum = 1)]
    mmr_lambda: Option<f64>,
    /// After so many days half of the part of a passage's score that age decides is gone; null, the default: age decides
    /// nothing. A document is as old as it says, or else as it is here.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 36_500)]
    recency_half_life_days: Option<Option<i64>>,
    /// The part of the score that age decides; 0.5 unless given.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = f64, required = false, minimum = 0, maximum = 1)]
    recency_weight: Option<f64>,
    /// By what the scores of a source's passages are multiplied, by the source's id, 0.1 to 10; 1 where nothing is said. Only
    /// the chatbot's own sources; one that is deleted later may stay.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = BTreeMap<String, f64>, required = false)]
    source_boosts: Option<BTreeMap<SourceId, f64>>,
    /// Whether the installation's reranker decides the order, where there is one; true unless given.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = bool, required = false)]
    rerank: Option<bool>,
    /// Tokens of what stands around the passages, put into a prompt with them as far as there is room: the chunks next to
    /// them, then the rest of their section, then that of the section above; 0, the default: none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = i64, required = false, minimum = 0, maximum = 100_000)]
    context_tokens: Option<i64>,
}

impl SearchSettingsRequest {
    pub fn apply(self, settings: &mut SearchSettings) {
        fn put<T>(target: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *target = value;
            }
        }
        put(&mut settings.leave_out_repetitions, self.leave_out_repetitions);
        put(&mut settings.mmr_lambda, self.mmr_lambda);
        put(&mut settings.recency_half_life_days, self.recency_half_life_days);
        put(&mut settings.recency_weight, self.recency_weight);
        put(&mut settings.source_boosts, self.source_boosts);
        put(&mut settings.rerank, self.rerank);
        put(&mut settings.context_tokens, self.context_tokens);
    }
}
