//! Behaviour of the crate through its public types.

mod child;
mod conformance;
mod crash;
mod damaged_index;
mod embedded_index;
mod forgotten;
mod half_written;
mod local_embedder;
mod openai_embedder;
mod openai_refusals;
mod own_shards;
mod pgvector_index;
mod pgvector_movers;
mod pgvector_tables;
mod pgvector_walls;
mod pgvector_within;
mod qdrant_index;
mod qdrant_server;
mod qdrant_setup;
mod rerank_server;
mod samples;
mod scripted_server;
mod static_embedder;
