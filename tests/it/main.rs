//! Behaviour tests of the service: one file per behaviour.

#![allow(unreachable_pub, reason = "nothing leaves a test binary: pub marks what a test may use")]

mod foreign_tokens;
mod harness;
mod isolation;
mod job_turns;
mod jobs;
mod keys;
mod login;
mod main_job;
mod members;
mod model_client;
mod permissions;
mod process;
mod row_security;
mod schedules;
mod schema;
mod usage_ledger;
