//! The collection on the server: what it is called, how it is laid out, and making it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use qdrant_client::qdrant::payload_index_params::IndexParams;
use qdrant_client::qdrant::quantization_config::Quantization;
use qdrant_client::qdrant::read_consistency;
use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{
    BinaryQuantization, CollectionConfig, CreateCollection, CreateFieldIndexCollection, CreateShardKey,
    CreateShardKeyRequest, Distance, FieldType, HnswConfigDiff, IntegerIndexParams, KeywordIndexParams,
    Memory, Modifier, OptimizersConfigDiff, PayloadIndexParams, QuantizationConfig, QuantizationType,
    ReadConsistency as ServerConsistency, ReadConsistencyType, ScalarQuantization, ShardingMethod,
    SparseVectorConfig, SparseVectorParams, UuidIndexParams, Value, VectorParams, VectorParamsMap,
    VectorsConfig, WriteOrdering as ServerOrdering, WriteOrderingType,
};
use uuid::Uuid;

use super::calls::{Calls, is_already_there, is_not_found};
use super::options::{QdrantOptions, QdrantTuning, Quantisation, ReadConsistency, WriteOrdering};
use super::point::{DATE, DENSE, DOCUMENT, FACETS, GROUPS, LANGUAGE, SOURCE, TAGS, TENANT, WORDS};
use super::scope::SHARED_SHARD;
use crate::analysis::ANALYSIS;
use crate::index::IndexError;

/// Version of what is in this file and in `point.rs`; another one needs another collection.
const LAYOUT: i64 = 1;

/// The first version that counts how rare a term is among one tenant's points (`SearchParams.idf`). An older one would
/// ignore the wish, and scores would depend on other tenants.
const OLDEST_SERVER: (u64, u64) = (1, 19);

/// Links of a point in its tenant's graph. There is no graph over all points (`m: 0`): no search spans tenants.
const GRAPH_LINKS: u64 = 16;

const MAX_NAMED_MODEL_CHARS: usize = 60;

/// What the collection writes down about itself.
const KEPT_LAYOUT: &str = "frontdesk_layout";
const KEPT_MODEL: &str = "embedding_model";
const KEPT_GENERATION: &str = "generation";
/// When it was made, in seconds since 1970. Those of an earlier release have none, and are old.
const KEPT_TIME: &str = "made_at";

/// A collection as it should be.
pub(super) struct Layout {
    pub(super) name: String,
    pub(super) tuning: QdrantTuning,
    model_id: String,
    pub(super) dimension: Option<usize>,
}

impl Layout {
    pub(super) fn new(options: &QdrantOptions) -> Self {
        let model_id = options.model_id.clone().unwrap_or_default();
        Self {
            name: collection_name(&options.tuning.collection_prefix, &model_id, options.dimension),
            tuning: options.tuning.clone(),
            model_id,
            dimension: options.dimension,
        }
    }

    /// Whether large tenants get shards of their own.
    pub(super) fn is_tiered(&self) -> bool {
        self.tuning.promote_from_chunks.is_some()
    }

    pub(super) fn is_quantised(&self) -> bool {
        self.tuning.quantisation != Quantisation::None
    }

    /// `None` is what the server does unless asked otherwise.
    pub(super) fn ordering(&self) -> Option<ServerOrdering> {
        let ordering = match self.tuning.write_ordering {
            WriteOrdering::Weak => return None,
            WriteOrdering::Medium => WriteOrderingType::Medium,
            WriteOrdering::Strong => WriteOrderingType::Strong,
        };
        Some(ServerOrdering {
            r#type: ordering.into(),
        })
    }

    /// `None` is what the server does unless asked otherwise.
    pub(super) fn read_consistency(&self) -> Option<ServerConsistency> {
        let consistency = match self.tuning.read_consistency {
            ReadConsistency::One => return None,
            ReadConsistency::Majority => ReadConsistencyType::Majority,
            ReadConsistency::Quorum => ReadConsistencyType::Quorum,
            ReadConsistency::All => ReadConsistencyType::All,
        };
        Some(ServerConsistency {
            value: Some(read_consistency::Value::Type(consistency.into())),
        })
    }

    /// Finds the collection, or makes it, and gives its generation. Several processes may do so at once.
    pub(super) async fn open(&self, calls: &Calls) -> Result<String, IndexError> {
        let health = calls
            .read(
                "ask its version",
                |client| async move { client.health_check().await },
            )
            .await?;
        check_version(&health.version)?;
        let config = match self.find(calls).await? {
            Some(config) => config,
            None => {
                self.create(calls).await?;
                self.find(calls)
                    .await?
                    .ok_or_else(|| self.foreign("it vanished as soon as it was made"))?
            }
        };
        let generation = self.check(&config)?;
        for request in self.field_indexes() {
            calls
                .write("index a field", |client| {
                    let request = request.clone();
                    async move { client.create_field_index(request).await }
                })
                .await?;
        }
        if self.is_tiered() {
            self.create_shard(
                calls,
                CreateShardKey {
                    shard_key: Some(SHARED_SHARD.into()),
                    shards_number: Some(1),
                    replication_factor: Some(self.tuning.replication_factor),
                    ..CreateShardKey::default()
                },
            )
            .await?;
        }
        Ok(generation)
    }

    /// What the collection is called by now, if there is one.
    pub(super) async fn find_generation(&self, calls: &Calls) -> Result<Option<String>, IndexError> {
        let config = self.find(calls).await?;
        config.map(|config| self.check(&config)).transpose()
    }

    /// Removes the collections of the same model that are of former rules of words, once this one is `at_least` so old: processes
    /// of the release before may ask them until then. How many went.
    pub(super) async fn remove_former(&self, calls: &Calls, at_least: Duration) -> Result<usize, IndexError> {
        let Some(config) = self.find(calls).await? else {
            return Ok(0);
        };
        let made_at = config.metadata.get(KEPT_TIME).and_then(Value::as_integer);
        let made_at = made_at.unwrap_or_default();
        if now() - made_at < i64::try_from(at_least.as_secs()).unwrap_or(i64::MAX) {
            return Ok(0);
        }
        let listed = calls.read("list the collections", |client| async move {
            client.list_collections().await
        });
        let names = listed.await?.collections.into_iter().map(|listed| listed.name);
        let stem = self
            .name
            .strip_suffix(&ANALYSIS.to_string())
            .unwrap_or(&self.name);
        let is_former = |name: &String| {
            let rules = name
                .strip_prefix(stem)
                .and_then(|rules| rules.parse::<u32>().ok());
            rules.is_some_and(|rules| rules < ANALYSIS)
        };
        let mut removed = 0;
        for name in names.filter(is_former) {
            calls
                .write("remove a former collection", |client| {
                    let name = name.clone();
                    async move { client.delete_collection(name).await.map(drop) }
                })
                .await?;
            tracing::info!(
                collection = name,
                "a collection of former rules of words is removed"
            );
            removed += 1;
        }
        Ok(removed)
    }

    /// Makes a shard with a key, unless it is there.
    pub(super) async fn create_shard(&self, calls: &Calls, shard: CreateShardKey) -> Result<(), IndexError> {
        let request = CreateShardKeyRequest {
            collection_name: self.name.clone(),
            request: Some(shard),
            timeout: None,
        };
        calls
            .write("make a shard", |client| {
                let request = request.clone();
                async move {
                    match client.create_shard_key(request).await {
                        Err(error) if is_already_there(&error) => Ok(()),
                        outcome => outcome.map(drop),
                    }
                }
            })
            .await
    }

    async fn find(&self, calls: &Calls) -> Result<Option<CollectionConfig>, IndexError> {
        calls
            .read("find the collection", |client| async move {
                match client.collection_info(self.name.as_str()).await {
                    Err(error) if is_not_found(&error) => Ok(None),
                    outcome => Ok(outcome?.result.and_then(|info| info.config)),
                }
            })
            .await
    }

    async fn create(&self, calls: &Calls) -> Result<(), IndexError> {
        let request = self.create_request(&Uuid::new_v4().to_string());
        calls
            .write("make the collection", |client| {
                let request = request.clone();
                async move {
                    match client.create_collection(request).await {
                        Err(error) if is_already_there(&error) => Ok(()),
                        outcome => outcome.map(drop),
                    }
                }
            })
            .await
    }

    fn create_request(&self, generation: &str) -> CreateCollection {
        let tuning = &self.tuning;
        let method = if self.is_tiered() {
            ShardingMethod::Custom
        } else {
            ShardingMethod::Auto
        };
        CreateCollection {
            collection_name: self.name.clone(),
            vectors_config: Some(VectorsConfig {
                config: Some(Config::ParamsMap(VectorParamsMap {
                    map: self.dense_params().into_iter().collect(),
                })),
            }),
            sparse_vectors_config: Some(SparseVectorConfig {
                map: HashMap::from([(
                    WORDS.to_owned(),
                    SparseVectorParams {
                        modifier: Some(Modifier::Idf.into()),
                        ..SparseVectorParams::default()
                    },
                )]),
            }),
            hnsw_config: Some(HnswConfigDiff {
                m: Some(0),
                payload_m: Some(GRAPH_LINKS),
                ..HnswConfigDiff::default()
            }),
            optimizers_config: Some(OptimizersConfigDiff {
                // What is acknowledged is found at once, whether or not its graph is built.
                prevent_unoptimized: Some(false),
                ..OptimizersConfigDiff::default()
            }),
            quantization_config: quantization(tuning.quantisation),
            shard_number: tuning.shards.filter(|_| !self.is_tiered()),
            sharding_method: Some(method.into()),
            replication_factor: Some(tuning.replication_factor),
            write_consistency_factor: Some(tuning.write_consistency_factor),
            metadata: HashMap::from([
                (KEPT_LAYOUT.to_owned(), Value::from(LAYOUT)),
                (KEPT_MODEL.to_owned(), Value::from(self.model_id.as_str())),
                (KEPT_GENERATION.to_owned(), Value::from(generation)),
                (KEPT_TIME.to_owned(), Value::from(now())),
            ]),
            ..CreateCollection::default()
        }
    }

    fn dense_params(&self) -> Option<(String, VectorParams)> {
        let memory = if self.tuning.vectors_on_disk {
            Memory::Cold
        } else {
            Memory::Cached
        };
        let params = VectorParams {
            size: self.dimension? as u64,
            distance: Distance::Cosine.into(),
            memory: Some(memory.into()),
            ..VectorParams::default()
        };
        Some((DENSE.to_owned(), params))
    }

    /// Whether the collection is ours and holds what we would put into it; its generation.
    fn check(&self, config: &CollectionConfig) -> Result<String, IndexError> {
        let kept_text = |name: &str| config.metadata.get(name)?.as_str().cloned();
        if config.metadata.get(KEPT_LAYOUT).and_then(Value::as_integer) != Some(LAYOUT) {
            return Err(self.foreign("it was made by something else or by another version"));
        }
        if kept_text(KEPT_MODEL).as_ref() != Some(&self.model_id) {
            return Err(self.foreign("it holds the vectors of another embedding model"));
        }
        let params = config.params.as_ref();
        let is_custom = params.is_some_and(|params| params.sharding_method() == ShardingMethod::Custom);
        if is_custom != self.is_tiered() {
            return Err(self.foreign(if is_custom {
                "it has shards of tenants' own, and the settings promote none"
            } else {
                "it has no shards of tenants' own, and the settings promote large tenants"
            }));
        }
        let vectors = params.and_then(|params| params.vectors_config.as_ref()?.config.as_ref());
        let size = match vectors {
            Some(Config::ParamsMap(vectors)) => vectors.map.get(DENSE).map(|dense| dense.size as usize),
            _ => None,
        };
        if size != self.dimension {
            return Err(self.foreign("its vectors have another length"));
        }
        kept_text(KEPT_GENERATION).ok_or_else(|| self.foreign("it does not say when it was made"))
    }

    fn foreign(&self, reason: &str) -> IndexError {
        IndexError::Damaged {
            reason: format!(
                "the collection {:?} on the index server cannot be used: {reason}; choose another \
                 collection prefix, or delete the collection to have it filled again from the rows",
                self.name
            ),
        }
    }

    /// What filters ask for. A graph is built for each tenant and for each source, which every search names.
    fn field_indexes(&self) -> Vec<CreateFieldIndexCollection> {
        let tenants = IndexParams::KeywordIndexParams(KeywordIndexParams {
            is_tenant: Some(true),
            ..KeywordIndexParams::default()
        });
        let id = |has_graph| {
            IndexParams::UuidIndexParams(UuidIndexParams {
                enable_hnsw: Some(has_graph),
                ..UuidIndexParams::default()
            })
        };
        let words = || {
            IndexParams::KeywordIndexParams(KeywordIndexParams {
                enable_hnsw: Some(false),
                ..KeywordIndexParams::default()
            })
        };
        let range = IndexParams::IntegerIndexParams(IntegerIndexParams {
            lookup: Some(false),
            range: Some(true),
            enable_hnsw: Some(false),
            ..IntegerIndexParams::default()
        });
        let fields = [
            (TENANT, FieldType::Keyword, tenants),
            (SOURCE, FieldType::Uuid, id(true)),
            (DOCUMENT, FieldType::Uuid, id(false)),
            (LANGUAGE, FieldType::Keyword, words()),
            (TAGS, FieldType::Keyword, words()),
            (GROUPS, FieldType::Keyword, words()),
            (FACETS, FieldType::Keyword, words()),
            (DATE, FieldType::Integer, range),
        ];
        let requests = fields
            .into_iter()
            .map(|(name, kind, params)| CreateFieldIndexCollection {
                collection_name: self.name.clone(),
                wait: Some(true),
                field_name: name.to_owned(),
                field_type: Some(kind.into()),
                field_index_params: Some(PayloadIndexParams {
                    index_params: Some(params),
                }),
                ..CreateFieldIndexCollection::default()
            });
        requests.collect()
    }
}

/// One collection per embedding model, dimension and analysis of words: a change of any is a new collection, which is
/// filled beside the old one.
fn collection_name(prefix: &str, model_id: &str, dimension: Option<usize>) -> String {
    let Some(dimension) = dimension else {
        return format!("{prefix}-words-{ANALYSIS}");
    };
    let readable: String = model_id
        .chars()
        .take(MAX_NAMED_MODEL_CHARS)
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    // Two models that read alike are still two.
    let digest = crc32fast::hash(model_id.as_bytes());
    format!("{prefix}-{readable}-{digest:08x}-{dimension}-{ANALYSIS}")
}

fn quantization(quantisation: Quantisation) -> Option<QuantizationConfig> {
    // The copies are what every search reads.
    let memory = Some(Memory::Pinned.into());
    let quantization = match quantisation {
        Quantisation::None => return None,
        Quantisation::Scalar => Quantization::Scalar(ScalarQuantization {
            r#type: QuantizationType::Int8.into(),
            memory,
            ..ScalarQuantization::default()
        }),
        Quantisation::Binary => Quantization::Binary(BinaryQuantization {
            memory,
            ..BinaryQuantization::default()
        }),
    };
    Some(QuantizationConfig {
        quantization: Some(quantization),
    })
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed();
    since
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or_default()
}

fn check_version(version: &str) -> Result<(), IndexError> {
    let mut numbers = version
        .trim_start_matches('v')
        .split('.')
        .map(|part| part.parse::<u64>().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    match (major, minor) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_SERVER => Ok(()),
        _ => Err(IndexError::Refused {
            reason: format!(
                "the index server is Qdrant {version}, and {}.{} or newer is needed: older ones let the texts of one tenant move the scores of another",
                OLDEST_SERVER.0, OLDEST_SERVER.1
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_would_mix_the_statistics_of_tenants_is_refused() {
        for version in ["1.19.0", "1.20.3", "v1.21.0", "2.0.0", "1.20.0-dev"] {
            check_version(version).expect(version);
        }
        for version in ["1.18.9", "0.11.0", "", "unknown"] {
            check_version(version).expect_err(version);
        }
    }

    #[test]
    fn models_that_read_alike_have_collections_of_their_own() {
        let names = [
            collection_name("frontdesk", "a/b", Some(384)),
            collection_name("frontdesk", "a-b", Some(384)),
            collection_name("frontdesk", "a/b", Some(768)),
            collection_name("other", "a/b", Some(384)),
            collection_name("frontdesk", "", None),
        ];
        let distinct: std::collections::HashSet<&String> = names.iter().collect();

        assert_eq!(distinct.len(), names.len());
        assert!(names[0].starts_with("frontdesk-a-b-"), "{}", names[0]);
    }
}
