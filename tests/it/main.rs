//! Behaviour tests of the service: one file per behaviour.

#![allow(unreachable_pub, reason = "nothing leaves a test binary: pub marks what a test may use")]

mod harness;
mod job_turns;
mod jobs;
mod main_job;
mod model_client;
mod process;
mod schedules;
mod usage_ledger;
