//! The numbers behind the embedded index's behaviour, in one place, so that tests and measurements can change them.

use std::time::Duration;

/// When the embedded index builds graphs and tidies up. The default suits a server; all of it may change between openings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Vectors of one segment from which a graph is built, in KiB; below it every search is exact. Where large tenants move
    /// to shards of their own, only those have graphs.
    pub graph_from_kib: usize,
    /// Vectors that pass a filter up to which they are compared one by one although there is a graph, in KiB.
    pub exact_up_to_kib: usize,
    /// Chunks from which on a tenant gets a shard of its own; `u64::MAX`: none does. The default is about where asking a
    /// graph becomes cheaper than comparing one by one. Meant for vectors of 384 values, in proportion fewer of larger ones.
    pub own_shard_from_chunks: u64,
    /// Tenants with a shard of their own, at most: each has a thread and an engine open. Who comes after them stays in its
    /// shared shard, where it is found by comparing one by one.
    pub most_own_shards: usize,
    /// What a move has to leave of the disk.
    pub left_free_bytes: u64,
    /// How much later an upsert of a tenant who is moving returns: what comes meanwhile is stored twice, and a move comes to
    /// its end when the engine has caught up with it.
    pub moving_pause: Duration,
    /// Pause after which a move that failed is tried again.
    pub move_again_after: Duration,
    /// Changed points after which the engine is asked whether graphs, merges or reclaiming are due.
    pub optimise_after_points: usize,
    /// Size of the redo log at which both sides are synced and the log emptied; bounds the time that opening takes.
    pub checkpoint_bytes: u64,
    /// Size of the redo log, which cannot be emptied while graphs are built, at which writing waits for the build. The
    /// engine builds on for as long as there is something to build, and to one who writes without a pause there always is.
    pub log_most_bytes: u64,
    /// Memory of a shard's chunks that are not in its files yet, at which the same is done.
    pub fresh_bytes: usize,
    /// Size of the engine's own log at which the shard is opened anew to be rid of it, while writes go on and when quiet.
    /// The log is mapped into memory, so this also bounds what it adds to the process.
    pub engine_log_bytes_busy: u64,
    pub engine_log_bytes_idle: u64,
    /// How long files keep hashes and vectors of what was deleted, where something is written all the time, and where nothing is.
    /// Then what has any is written anew.
    pub deleted_kept_busy: Duration,
    pub deleted_kept_idle: Duration,
    /// How long writing goes on beside that: what is deleted meanwhile makes work of what was done.
    pub deleting_beside: Duration,
    /// How long a search waits for its turn where more come than there are cores.
    pub longest_wait: Duration,
    /// How long closing waits for a graph build to end, which cannot be interrupted; what it would lose stays in the redo
    /// log, and the directory stays locked until the build or the process ends.
    pub close_grace: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            graph_from_kib: 40_000,
            exact_up_to_kib: 20_000,
            own_shard_from_chunks: 20_000,
            most_own_shards: 256,
            left_free_bytes: 512 << 20,
            moving_pause: Duration::from_secs(1),
            move_again_after: Duration::from_secs(600),
            optimise_after_points: 4_000,
            checkpoint_bytes: 16 << 20,
            log_most_bytes: 2 << 30,
            fresh_bytes: 16 << 20,
            engine_log_bytes_busy: 64 << 20,
            engine_log_bytes_idle: 8 << 20,
            deleted_kept_busy: Duration::from_mins(40),
            deleted_kept_idle: Duration::from_mins(15),
            deleting_beside: Duration::from_secs(30),
            longest_wait: Duration::from_secs(5),
            close_grace: Duration::from_secs(5),
        }
    }
}
