//! Behaviour tests of the service: one file per behaviour.

#![allow(unreachable_pub, reason = "nothing leaves a test binary: pub marks what a test may use")]

mod addresses;
mod audit;
mod cors;
mod foreign_tokens;
mod harness;
mod health;
mod idempotency;
mod input;
mod isolation;
mod job_turns;
mod jobs;
mod key_sets;
mod keys;
mod login;
mod login_limits;
mod main_job;
mod members;
mod model_client;
mod openapi;
mod permissions;
mod process;
mod rate_limits;
mod row_security;
mod schedules;
mod schema;
mod usage_ledger;
