//! Frontdesk: a multi-tenant knowledge and chat engine. ARCHITECTURE.md is the map.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod id;
pub mod places;
pub mod rest;
pub mod secrets;
pub mod telemetry;

pub mod db;
pub mod http;
pub mod jobs;

pub mod chat;
pub mod chatbots;
pub mod evals;
pub mod generations;
pub mod integrations;
pub mod knowledge;
pub mod llm;
pub mod tenancy;
pub mod usage;
