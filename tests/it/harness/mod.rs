//! What the tests stand on.

#![allow(dead_code, reason = "a harness may offer more than the present tests use")]

pub mod app;
pub mod client;
pub mod databases;
pub mod drive;
pub mod embedders;
pub mod generations;
pub mod indexes;
pub mod issuer;
pub mod mortal;
pub mod openai;
pub mod operations;
pub mod people;
pub mod reranker;
pub mod stored;
pub mod turns;
pub mod work;
