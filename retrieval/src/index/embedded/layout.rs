//! How the engine keeps the vectors of a shard: shared shards and those of one large tenant differ.

use std::num::NonZeroUsize;
use std::thread;

use qdrant_edge::{
    AcornSearchParams, Distance, EdgeConfig, EdgeOptimizersConfig, EdgeVectorParams, HnswIndexConfig,
    QuantizationConfig, QuantizationSearchParams, ScalarQuantizationConfig, ScalarType, SearchParams,
    VectorStorageDatatype, WalOptions,
};

use super::stored::DENSE;
use super::tuning::Tuning;

/// The engine's own log: it numbers operations by it and writes every operation there, but never reads one back. Small
/// files, so that little is preallocated and what is no longer needed can go.
const ENGINE_LOG_FILE_BYTES: usize = 2 << 20;

/// Links per point of a graph. In a shared shard that goes for the graph over all points and for those of single tenants.
/// No search spans tenants, yet the first one is needed: a tenant's own graph has a single entry, and is lost to searches
/// when that point is deleted.
const GRAPH_LINKS: usize = 16;
const GRAPH_BUILD_CANDIDATES: usize = 128;

/// Share of deleted points from which a segment is built anew; searches walk around deleted points and lose their way
/// where most are.
const DELETED_SHARE: f64 = 0.1;

/// Vectors of a segment up to which segments are merged, in KiB: bounds the time and the memory of a build. A search asks
/// every segment.
const LARGEST_SEGMENT_KIB: usize = 256_000;

/// What an own shard may have without a graph while it is written to: a part of its chunks, and of their vectors no more than
/// this, in KiB. A search compares these one by one, which costs some 8 ms at most; of smaller parts more graphs are built
/// twice.
const UNBUILT_SHARE: u64 = 4;
const MOST_UNBUILT_KIB: usize = 64_000;

/// Segments that are left when all is built, where they are not too large to be merged.
const FEWEST_SEGMENTS: usize = 2;

/// Segments that an own shard may have while it is written to: merged at once, their graphs would be built again and again.
const MOST_SEGMENTS: usize = 8;

/// By how much the sizes from which graphs are built and asked are smaller in a shard of a tenant's own: its vectors take
/// half, and who has just moved there has a graph.
const OWN_SMALLER: usize = 4;

/// What the engine takes for "never".
const NO_GRAPHS: usize = 0;

/// Share of a vector's values that the eight bits of a quantised one tell apart; those beyond count as the outermost.
const QUANTILE: f32 = 0.99;

/// Points that quantised vectors choose at least, to be compared by whole ones: of few of them the nearest are not the nearest.
const LEAST_COMPARED: usize = 100;

/// Values of a vector that the number of chunks is meant for from which tenants move.
const USUAL_DIMENSION: u64 = 384;

/// How much a build does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All that is due.
    Whole,
    /// Whatever keeps deleted points, beside what is due.
    Clean,
    /// While an own shard is written to: only what came together in so many points, and merges once there are many segments.
    Large { points: usize },
}

/// What an engine holds and how it is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) dimension: usize,
    pub(super) tuning: Tuning,
    /// All of it is one tenant's, who has much. Then graphs are searched by quantised vectors, a quarter in size, and what
    /// they find is compared by whole ones, which are kept at half precision. All of these are files that are mapped.
    pub(super) is_own: bool,
}

impl Layout {
    pub(super) fn config(self) -> EdgeConfig {
        let Self {
            dimension,
            tuning,
            is_own,
        } = self;
        let smaller = if is_own { OWN_SMALLER } else { 1 };
        // The engine gives them a low priority: whoever asks or writes goes first.
        let build_threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let graphs = HnswIndexConfig {
            m: GRAPH_LINKS,
            ef_construct: GRAPH_BUILD_CANDIDATES,
            full_scan_threshold: tuning.exact_up_to_kib / smaller,
            max_indexing_threads: build_threads,
            on_disk: Some(true),
            payload_m: Some(if is_own { 0 } else { GRAPH_LINKS }),
            inline_storage: None,
        };
        let log = WalOptions {
            segment_capacity: ENGINE_LOG_FILE_BYTES,
            segment_queue_len: 0,
            retain_closed: NonZeroUsize::MIN,
        };
        let mut dense = EdgeVectorParams::builder(dimension, Distance::Cosine).on_disk(true);
        if is_own {
            let quantised = ScalarQuantizationConfig {
                r#type: ScalarType::Int8,
                quantile: Some(QUANTILE),
                always_ram: Some(false),
            };
            dense = dense
                .datatype(VectorStorageDatatype::Float16)
                .quantization_config(QuantizationConfig::from(quantised));
        }
        EdgeConfig::builder()
            .on_disk_payload(true)
            .vector(DENSE, dense.build())
            .hnsw_config(graphs)
            .optimizers(self.optimizers(Extent::Whole))
            .wal_options(log)
            .build()
    }

    /// What a build does while the owner of so many chunks writes on.
    pub(super) fn extent_while_writing(self, chunks: u64) -> Extent {
        let most = MOST_UNBUILT_KIB * 1_024 / (self.dimension * size_of::<u16>()).max(1);
        let points = usize::try_from(chunks / UNBUILT_SHARE).map_or(most, |points| points.min(most));
        Extent::Large {
            points: points.max(self.tuning.optimise_after_points),
        }
    }

    /// What is due when a build is of this extent.
    pub(super) fn optimizers(self, extent: Extent) -> EdgeOptimizersConfig {
        let smaller = if self.is_own { OWN_SMALLER } else { 1 };
        let graph_from_kib = match self.is_own || self.tuning.own_shard_from_chunks == u64::MAX {
            true => self.tuning.graph_from_kib / smaller,
            // Nobody here has so much that a graph would be asked.
            false => NO_GRAPHS,
        };
        let (graph_from_kib, segments) = match extent {
            // To merge graphs means to build them.
            Extent::Clean if self.is_own => (graph_from_kib, MOST_SEGMENTS),
            Extent::Whole | Extent::Clean => (graph_from_kib, FEWEST_SEGMENTS),
            Extent::Large { points } => {
                let bytes = points * self.dimension * size_of::<u16>();
                (graph_from_kib.max(bytes / 1_024), MOST_SEGMENTS)
            }
        };
        let is_clean = extent == Extent::Clean;
        EdgeOptimizersConfig {
            default_segment_number: Some(segments),
            deleted_threshold: Some(if is_clean { 0.0 } else { DELETED_SHARE }),
            vacuum_min_vector_number: is_clean.then_some(0),
            max_segment_size: Some(LARGEST_SEGMENT_KIB),
            indexing_threshold: Some(graph_from_kib),
            ..EdgeOptimizersConfig::default()
        }
    }

    /// Chunks from which on a tenant gets a shard of its own: fewer of larger vectors, as comparing them costs more.
    pub(super) fn outgrown_from(self) -> u64 {
        let chunks = self.tuning.own_shard_from_chunks;
        match self.dimension as u64 {
            dimension if dimension > USUAL_DIMENSION && chunks != u64::MAX => {
                chunks.saturating_mul(USUAL_DIMENSION) / dimension
            }
            _ => chunks,
        }
    }

    /// How the engine searches for `limit` points; `exact`: by comparing all vectors that pass the filter.
    pub(super) fn search_params(self, limit: usize, exact: bool) -> SearchParams {
        let quantised = QuantizationSearchParams {
            ignore: false,
            rescore: Some(true),
            oversampling: Some((LEAST_COMPARED as f64 / limit.max(1) as f64).max(1.0)),
        };
        // Of what a filter lets through of a large tenant, one source or what few may read, hardly any point has a link to
        // another: then the neighbours' neighbours are looked at, too (Patel and others, "ACORN", SIGMOD 2024). A shared
        // shard has links among each tenant's points.
        let acorn = AcornSearchParams {
            enable: true,
            max_selectivity: None,
        };
        SearchParams {
            exact,
            quantization: self.is_own.then_some(quantised),
            acorn: self.is_own.then_some(acorn),
            ..SearchParams::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_just_moved_has_a_graph_and_who_has_not_needs_none() {
        let layout = |is_own| Layout {
            dimension: 384,
            tuning: Tuning::default(),
            is_own,
        };
        let graph_from = |is_own| {
            let config: EdgeConfig = layout(is_own).config();
            config.optimizers.get_indexing_threshold_kb()
        };

        let moved_kib = layout(true).outgrown_from() as usize * 384 * 2 / 1_024;

        assert!(
            graph_from(true) < moved_kib,
            "{} of {moved_kib} KiB",
            graph_from(true)
        );
        assert_eq!(graph_from(false), usize::MAX);
    }

    #[test]
    fn while_a_large_tenant_writes_a_part_of_its_chunks_comes_together_before_a_graph_is_built() {
        let layout = Layout {
            dimension: 384,
            tuning: Tuning::default(),
            is_own: true,
        };
        let points = |chunks| match layout.extent_while_writing(chunks) {
            Extent::Large { points } => points,
            Extent::Whole | Extent::Clean => panic!("all is built"),
        };

        assert_eq!(points(0), 4_000);
        assert_eq!(points(100_000), 25_000);
        let most = points(1_000_000);
        assert_eq!(most, points(10_000_000));
        assert!(most * 4 <= LARGEST_SEGMENT_KIB * 1_024 / (2 * 384), "{most}");

        let while_writing = layout.optimizers(layout.extent_while_writing(100_000));
        let whole = layout.optimizers(Extent::Whole);
        assert_eq!(
            while_writing.get_indexing_threshold_kb(),
            25_000 * 2 * 384 / 1_024
        );
        assert!(while_writing.get_indexing_threshold_kb() > whole.get_indexing_threshold_kb());
        assert!(while_writing.get_number_segments() > whole.get_number_segments());
    }

    #[test]
    fn larger_vectors_outgrow_a_shared_shard_sooner() {
        let outgrown_from = |dimension, own_shard_from_chunks| {
            let tuning = Tuning {
                own_shard_from_chunks,
                ..Tuning::default()
            };
            let is_own = false;
            Layout {
                dimension,
                tuning,
                is_own,
            }
            .outgrown_from()
        };

        assert_eq!(outgrown_from(384, 20_000), 20_000);
        assert_eq!(outgrown_from(16, 20_000), 20_000);
        assert_eq!(outgrown_from(3_072, 20_000), 2_500);
        assert_eq!(outgrown_from(3_072, u64::MAX), u64::MAX);
    }
}
