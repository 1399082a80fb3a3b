//! Behaviour tests of the service: one file per behaviour.

#![allow(
    unreachable_pub,
    reason = "nothing leaves a test binary: pub marks what a test may use"
)]

mod addresses;
mod answers;
mod audit;
mod budgets;
mod cancelled_reads;
mod chunk_edits;
mod chunk_preview;
mod citations;
mod conversations;
mod cors;
mod crash;
mod crawl_proof;
mod deletion;
mod disconnects;
mod documents;
mod drive;
mod exclusions;
mod extractive;
mod foreign_tokens;
mod google;
mod harness;
mod health;
mod idempotency;
mod indexing;
mod ingestion;
mod injection;
mod input;
mod isolation;
mod job_turns;
mod jobs;
mod key_sets;
mod keys;
mod large_documents;
mod login;
mod login_limits;
mod lost_files;
mod main_job;
mod media;
mod members;
mod model_change;
mod model_client;
mod model_faults;
mod openapi;
mod permissions;
mod process;
mod prompt_window;
mod rate_limits;
mod revocation;
mod row_security;
mod schedules;
mod schema;
mod search;
mod source_events;
mod source_push;
mod source_schedules;
mod source_secrets;
mod source_settings;
mod sources;
mod streams;
mod switched_off;
mod sync;
mod unfinished;
mod unpriced;
mod upload_names;
mod uploads;
mod usage_api;
mod usage_ledger;
mod versions;
