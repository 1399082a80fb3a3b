//! What an index is asked and what it answers.

use crate::analysis::Language;
use crate::{ChunkId, DocumentId, SourceId};

use super::Facets;

/// A question, in words and, where an embedder is at hand, as a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchQuery {
    pub text: String,
    pub vector: Option<Vec<f32>>,
    pub filter: Filter,
    /// Most candidates of each side.
    pub limit: usize,
    /// Those that the question may be in, the likeliest first. Empty: those that its text shows.
    pub languages: Vec<Language>,
}

/// Which of the tenant's chunks may be found: those that pass every part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Only chunks of these sources. Empty finds nothing: it never means "all".
    pub sources: Vec<SourceId>,
    /// When given, only chunks of these documents. An empty list finds nothing.
    pub documents: Option<Vec<DocumentId>>,
    /// When given, only chunks in one of these languages, none of unknown language. An empty list finds nothing.
    pub languages: Option<Vec<String>>,
    /// When given, only chunks with one of these tags. An empty list finds nothing.
    pub tags: Option<Vec<String>>,
    /// When given, only chunks with a date of then or later.
    pub since: Option<i64>,
    /// When given, only chunks with a date before then.
    pub until: Option<i64>,
    pub audience: Audience,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Somebody with these access groups: finds what everyone may read and what one of the groups may.
    Groups(Vec<String>),
    /// The owner of the knowledge.
    Everything,
}

impl Default for Audience {
    /// Somebody without any group.
    fn default() -> Self {
        Self::Groups(Vec::new())
    }
}

impl Audience {
    /// Whether it may read what these access groups are set on.
    pub fn may_read(&self, groups: &[String]) -> bool {
        match self {
            Self::Everything => true,
            Self::Groups(own) => groups.is_empty() || groups.iter().any(|group| own.contains(group)),
        }
    }
}

impl Filter {
    /// Whether nothing at all can pass.
    pub fn lets_nothing(&self) -> bool {
        let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_some_and(Vec::is_empty);
        let no_time = matches!((self.since, self.until), (Some(since), Some(until)) if since >= until);
        self.sources.is_empty()
            || self.documents.as_ref().is_some_and(Vec::is_empty)
            || is_empty(&self.languages)
            || is_empty(&self.tags)
            || no_time
    }

    /// Whether a document's facets pass; its place is not looked at.
    pub fn allows_facets(&self, facets: &Facets) -> bool {
        let in_language = |languages: &Vec<String>| {
            let language = facets.language.as_ref();
            language.is_some_and(|language| languages.contains(language))
        };
        let has_tag = |tags: &Vec<String>| facets.tags.iter().any(|tag| tags.contains(tag));
        self.audience.may_read(&facets.groups)
            && self.languages.as_ref().is_none_or(in_language)
            && self.tags.as_ref().is_none_or(has_tag)
            && self
                .since
                .is_none_or(|since| facets.date.is_some_and(|date| date >= since))
            && self
                .until
                .is_none_or(|until| facets.date.is_some_and(|date| date < until))
    }
}

/// What both sides found, each chunk once, in no promised order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Candidates {
    pub hits: Vec<Candidate>,
    /// The BM25 score of a chunk that said nothing but the question's words, each as strongly as a chunk can: what keyword
    /// scores are a share of. `None` where no words were asked for or the index cannot tell.
    pub keyword_ceiling: Option<f32>,
    /// Whether the question names a code that some of the tenant's chunks have, but few, of which the filter lets one through at
    /// least: they are meant, however alike others are.
    pub names_rare_code: bool,
}

/// A chunk that meaning or words found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub chunk_id: ChunkId,
    /// Cosine to the question's vector, in [-1, 1]; `None` when none was compared. Also there for a chunk that was found by
    /// words alone where the index has its vector at hand.
    pub similarity: Option<f32>,
    /// BM25 score, above 0 and without upper bound; `None` when the chunk is not among the best `limit` by words.
    pub keyword_score: Option<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn groups_open_what_is_set_on_one_of_them_and_nobody_without_one_reads_it() {
        let nobody = Audience::default();
        let staff = Audience::Groups(texts(&["staff", "sales"]));

        for (groups, to_nobody, to_staff) in [
            (texts(&[]), true, true),
            (texts(&["staff"]), false, true),
            (texts(&["legal", "sales"]), false, true),
            (texts(&["legal"]), false, false),
            (texts(&["Staff"]), false, false),
            (texts(&[""]), false, false),
        ] {
            assert_eq!(nobody.may_read(&groups), to_nobody, "{groups:?}");
            assert_eq!(staff.may_read(&groups), to_staff, "{groups:?}");
            assert!(Audience::Everything.may_read(&groups));
        }
    }

    #[test]
    fn a_filter_on_what_is_unknown_lets_it_not_through() {
        let known = Facets {
            language: Some("de".to_owned()),
            tags: texts(&["returns"]),
            date: Some(100),
            groups: vec![],
        };
        let filters = [
            Filter {
                languages: Some(texts(&["fr", "de"])),
                ..Filter::default()
            },
            Filter {
                tags: Some(texts(&["returns", "goods"])),
                ..Filter::default()
            },
            Filter {
                since: Some(100),
                ..Filter::default()
            },
            Filter {
                until: Some(101),
                ..Filter::default()
            },
        ];
        for filter in &filters {
            assert!(filter.allows_facets(&known), "{filter:?}");
            assert!(!filter.allows_facets(&Facets::default()), "{filter:?}");
        }
        let until_then = Filter {
            until: Some(100),
            ..Filter::default()
        };
        assert!(
            !until_then.allows_facets(&known),
            "the end is not part of the time"
        );
        assert!(Filter::default().allows_facets(&Facets::default()));
    }
}
