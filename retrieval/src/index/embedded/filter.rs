//! The wall between tenants of one shard: every condition the engine is ever given is made here, and none can be made
//! without a tenant.

use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    Condition, FieldCondition, Filter as EngineFilter, IntegerIndexParams, IsEmptyCondition, JsonPath,
    KeywordIndexParams, Match, PayloadFieldSchema, PayloadSchemaParams, PointId, Range, UuidIndexParams,
    ValueVariants,
};
use uuid::Uuid;

pub(super) use crate::index::field::{DATE, DOCUMENT, GROUPS, LANGUAGE, SOURCE, TAGS, TENANT};
use crate::index::spread::spread;
use crate::index::{Audience, Facets, Filter};
use crate::{ChunkId, DocumentId, SourceId, TenantId};

/// A condition that holds for points of one tenant only. Both sides of a shard are asked with one.
#[derive(Debug, Clone)]
pub(super) struct TenantFilter {
    tenant_id: TenantId,
    /// In order; `None` lets all of them through.
    sources: Option<Vec<SourceId>>,
    documents: Option<Vec<DocumentId>>,
    /// What is asked of facets. Its own lists of sources and documents are not looked at.
    facets: Filter,
}

impl TenantFilter {
    /// All points of this tenant.
    pub(super) fn all(tenant_id: TenantId) -> Self {
        Self {
            tenant_id,
            sources: None,
            documents: None,
            facets: Filter {
                audience: Audience::Everything,
                ..Filter::default()
            },
        }
    }

    /// The tenant's points of these documents.
    pub(super) fn of_documents(tenant_id: TenantId, document_ids: &[DocumentId]) -> Self {
        Self {
            documents: Some(sorted(document_ids)),
            ..Self::all(tenant_id)
        }
    }

    /// The tenant's points of these sources.
    pub(super) fn of_sources(tenant_id: TenantId, source_ids: &[SourceId]) -> Self {
        Self {
            sources: Some(sorted(source_ids)),
            ..Self::all(tenant_id)
        }
    }

    /// The tenant's points that `filter` lets through; `None` when it lets nothing through.
    pub(super) fn matching(tenant_id: TenantId, filter: &Filter) -> Option<Self> {
        (!filter.lets_nothing()).then(|| Self {
            tenant_id,
            sources: Some(sorted(&filter.sources)),
            documents: filter.documents.as_deref().map(sorted),
            facets: filter.clone(),
        })
    }

    pub(super) fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }

    pub(super) fn allows_source(&self, source_id: SourceId) -> bool {
        let sources = self.sources.as_ref();
        sources.is_none_or(|sources| sources.binary_search(&source_id).is_ok())
    }

    pub(super) fn allows_document(&self, document_id: DocumentId) -> bool {
        let documents = self.documents.as_ref();
        documents.is_none_or(|documents| documents.binary_search(&document_id).is_ok())
    }

    pub(super) fn allows_all_documents(&self) -> bool {
        self.documents.is_none()
    }

    pub(super) fn allows_facets(&self, facets: &Facets) -> bool {
        self.facets.allows_facets(facets)
    }

    /// Whether facets have to be looked at; `has_restricted`: the tenant has documents that not everyone may read.
    pub(super) fn asks_facets(&self, has_restricted: bool) -> bool {
        let asked = &self.facets;
        let is_visitor = asked.audience != Audience::Everything;
        (is_visitor && has_restricted)
            || asked.languages.is_some()
            || asked.tags.is_some()
            || asked.since.is_some()
            || asked.until.is_some()
    }

    /// The engine's form, to be used for the request at hand.
    pub(super) fn condition(&self) -> EngineFilter {
        EngineFilter {
            must: Some(self.conditions(Given::default())),
            ..EngineFilter::default()
        }
    }

    /// The same for these of the tenant's points.
    pub(super) fn condition_of_points(tenant_id: TenantId, ids: &[PointId]) -> EngineFilter {
        let mut conditions = Self::all(tenant_id).conditions(Given::default());
        conditions.push(Condition::HasId(ids.iter().copied().collect()));
        EngineFilter {
            must: Some(conditions),
            ..EngineFilter::default()
        }
    }

    /// The same without what is `given`; `None` where nothing is left to ask.
    pub(super) fn condition_beyond(&self, given: Given) -> Option<EngineFilter> {
        let must = self.conditions(given);
        (!must.is_empty()).then(|| EngineFilter {
            must: Some(must),
            ..EngineFilter::default()
        })
    }
}

/// What is known to hold for every point of a tenant in a shard, so that a search need not have the engine look it up at each
/// point that it comes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// The shard is the tenant's own.
    pub(super) tenant: bool,
    /// All of its sources are let through.
    pub(super) source: bool,
    /// Everyone may read all of its documents.
    pub(super) audience: bool,
}

impl Given {
    /// Whether all that `before` says is so.
    pub(super) fn confirms(self, before: Self) -> bool {
        (self.tenant || !before.tenant)
            && (self.source || !before.source)
            && (self.audience || !before.audience)
    }
}

impl TenantFilter {
    fn conditions(&self, given: Given) -> Vec<Condition> {
        let tenant = (!given.tenant).then(|| equals(TENANT, self.tenant_id.0));
        let sources = self.sources.as_ref().filter(|_| !given.source);
        let sources = sources.map(|ids| one_of(SOURCE, ids.iter().map(|id| id.0)));
        let documents = self.documents.as_ref();
        let documents = documents.map(|ids| one_of(DOCUMENT, ids.iter().map(|id| id.0)));
        let place = [tenant, sources, documents].into_iter().flatten();
        place.chain(self.facet_conditions(given)).collect()
    }

    fn facet_conditions(&self, given: Given) -> impl Iterator<Item = Condition> {
        let asked = &self.facets;
        let audience = match &asked.audience {
            Audience::Everything => None,
            Audience::Groups(_) if given.audience => None,
            Audience::Groups(groups) => Some(open_to(groups)),
        };
        let dates = (asked.since.is_some() || asked.until.is_some()).then(|| {
            let range = Range {
                gte: asked.since.map(as_number),
                lt: asked.until.map(as_number),
                ..Range::default()
            };
            Condition::Field(FieldCondition::new_range(path(DATE), range))
        });
        let languages = asked
            .languages
            .as_ref()
            .map(|names| one_of_texts(LANGUAGE, names));
        let tags = asked.tags.as_ref().map(|tags| one_of_texts(TAGS, tags));
        [audience, dates, languages, tags].into_iter().flatten()
    }
}

/// Holds for points without groups and for those with one of these.
fn open_to(groups: &[String]) -> Condition {
    let everyone = Condition::IsEmpty(IsEmptyCondition::from(path(GROUPS)));
    if groups.is_empty() {
        return everyone;
    }
    Condition::Filter(EngineFilter {
        should: Some(vec![everyone, one_of_texts(GROUPS, groups)]),
        ..EngineFilter::default()
    })
}

/// The engine compares numbers as floating point, which is exact for every second of the next million years.
fn as_number(seconds: i64) -> OrderedFloat<f64> {
    OrderedFloat(seconds as f64)
}

fn sorted<T: Copy + Ord>(ids: &[T]) -> Vec<T> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

/// Where a tenant's chunk lies in the shard. Two tenants that store a chunk under one id have two points.
pub(super) fn point_id(tenant_id: TenantId, chunk_id: ChunkId) -> PointId {
    PointId::Uuid(Uuid::from_u128(chunk_id.0.as_u128() ^ spread(tenant_id)))
}

/// The chunk behind a point of this tenant, the inverse of [`point_id`].
pub(super) fn chunk_id(tenant_id: TenantId, point_id: PointId) -> Option<ChunkId> {
    match point_id {
        PointId::Uuid(id) => Some(ChunkId(Uuid::from_u128(id.as_u128() ^ spread(tenant_id)))),
        PointId::NumId(_) => None,
    }
}

/// The payload fields the engine indexes, the tenant's as the one that points are grouped by.
pub(super) fn indexed_fields() -> impl Iterator<Item = (JsonPath, PayloadFieldSchema)> {
    let ids = [TENANT, SOURCE, DOCUMENT].map(|field| {
        let params = UuidIndexParams {
            is_tenant: Some(field == TENANT),
            on_disk: Some(true),
            enable_hnsw: Some(field == TENANT),
            ..UuidIndexParams::default()
        };
        (field, PayloadSchemaParams::Uuid(params))
    });
    let texts = [LANGUAGE, TAGS, GROUPS].map(|field| {
        let params = KeywordIndexParams {
            on_disk: Some(true),
            enable_hnsw: Some(false),
            ..KeywordIndexParams::default()
        };
        (field, PayloadSchemaParams::Keyword(params))
    });
    let date = IntegerIndexParams {
        lookup: Some(false),
        range: Some(true),
        on_disk: Some(true),
        enable_hnsw: Some(false),
        ..IntegerIndexParams::default()
    };
    let fields = ids.into_iter().chain(texts);
    fields
        .chain([(DATE, PayloadSchemaParams::Integer(date))])
        .map(|(field, params)| (path(field), PayloadFieldSchema::FieldParams(params)))
}

fn path(field: &str) -> JsonPath {
    field.parse().expect("field names are plain words")
}

fn equals(field: &str, id: Uuid) -> Condition {
    let value = ValueVariants::String(id.to_string());
    Condition::Field(FieldCondition::new_match(path(field), Match::from(value)))
}

fn one_of(field: &str, ids: impl Iterator<Item = Uuid>) -> Condition {
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    Condition::Field(FieldCondition::new_match(path(field), Match::from(ids)))
}

fn one_of_texts(field: &str, texts: &[String]) -> Condition {
    Condition::Field(FieldCondition::new_match(
        path(field),
        Match::from(texts.to_vec()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_found_again_by_its_own_tenant_only() {
        let (acme, globex) = (TenantId(Uuid::from_u128(1)), TenantId(Uuid::from_u128(2)));
        let chunk = ChunkId(Uuid::from_u128(77));

        assert_eq!(chunk_id(acme, point_id(acme, chunk)), Some(chunk));
        assert_ne!(point_id(acme, chunk), point_id(globex, chunk));
    }

    #[test]
    fn neighbouring_ids_never_share_a_point() {
        let points: std::collections::HashSet<PointId> = (0..300)
            .flat_map(|tenant| (0..300).map(move |chunk| (tenant, chunk)))
            .map(|(tenant, chunk)| {
                point_id(TenantId(Uuid::from_u128(tenant)), ChunkId(Uuid::from_u128(chunk)))
            })
            .collect();

        assert_eq!(points.len(), 300 * 300);
    }

    #[test]
    fn every_filter_names_its_tenant() {
        let tenant_id = TenantId(Uuid::from_u128(1));
        let sources = vec![SourceId(Uuid::from_u128(3))];
        let documents = Some(vec![DocumentId(Uuid::from_u128(4))]);
        let filters = [
            TenantFilter::all(tenant_id),
            TenantFilter::of_documents(tenant_id, &[]),
            TenantFilter::of_sources(tenant_id, &[]),
            TenantFilter::matching(
                tenant_id,
                &Filter {
                    sources,
                    documents,
                    ..Filter::default()
                },
            )
            .expect("something may match"),
        ];

        for filter in filters {
            let must = filter.condition().must.expect("conditions that all hold");
            assert!(must.contains(&equals(TENANT, tenant_id.0)));
        }
    }

    #[test]
    fn what_holds_for_all_points_is_not_asked_of_each() {
        let tenant_id = TenantId(Uuid::from_u128(1));
        let source_id = SourceId(Uuid::from_u128(3));
        let narrow = Filter {
            sources: vec![source_id],
            tags: Some(vec!["goods".to_owned()]),
            ..Filter::default()
        };
        let narrow = TenantFilter::matching(tenant_id, &narrow).expect("something may match");
        let conditions = |given| narrow.condition_beyond(given).and_then(|filter| filter.must);
        let everything = Given {
            tenant: true,
            source: true,
            audience: true,
        };

        let tags = one_of_texts(TAGS, &["goods".to_owned()]);
        assert_eq!(conditions(everything), Some(vec![tags.clone()]));
        let but_source = Given {
            source: false,
            ..everything
        };
        assert_eq!(
            conditions(but_source),
            Some(vec![one_of(SOURCE, [source_id.0].into_iter()), tags])
        );
        assert_eq!(conditions(Given::default()), narrow.condition().must);
        assert_eq!(
            TenantFilter::all(tenant_id).condition_beyond(everything),
            None,
            "nothing is left to ask"
        );
        assert!(everything.confirms(but_source) && !but_source.confirms(everything));
    }

    #[test]
    fn an_empty_list_matches_nothing() {
        let tenant_id = TenantId(Uuid::from_u128(1));
        let sources = vec![SourceId(Uuid::from_u128(3))];

        assert!(TenantFilter::matching(tenant_id, &Filter::default()).is_none());
        assert!(
            TenantFilter::matching(
                tenant_id,
                &Filter {
                    sources,
                    documents: Some(vec![]),
                    ..Filter::default()
                }
            )
            .is_none()
        );
    }
}
