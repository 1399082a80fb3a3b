//! What answered the questions of a run, and where that differs between two runs: their figures say something about a change
//! only to who knows what else was different.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::error::Result;
use crate::generations;
use crate::id::{ChatbotId, SourceId, TenantId};
use crate::knowledge::chunks::Chunking;
use crate::knowledge::cuts;

/// What answered a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = EvalSetup)]
pub struct Setup {
    /// The embedding model, with what tells it from others of its name, such as its precision, and the length of its vectors.
    pub embedding: String,
    pub cuts: Vec<SourceCut>,
    /// Another embedding model or another cut went live while the run was asking: it answered some of the questions.
    pub changed_meanwhile: bool,
}

/// How the documents of a source were cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = EvalSourceCut)]
pub struct SourceCut {
    pub source_id: SourceId,
    pub chunking: Chunking,
}

/// What was different for the second one of two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = EvalSetupDifference)]
pub struct SetupDifference {
    /// Another embedding model answered, or the same one with other weights or another precision.
    pub embedding: bool,
    /// Sources that were cut otherwise, or that one of the runs had not.
    pub cuts: Vec<CutDifference>,
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
        Ok(Self {
            embedding,
            cuts: cuts.collect(),
            changed_meanwhile: false,
        })
    }

    /// Notes what answers `now`, when the run ends.
    pub(super) fn is_ended_with(&mut self, now: &Self) {
        self.changed_meanwhile |= self.embedding != now.embedding || self.cuts != now.cuts;
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
