//! Runs over a source: what changes there changes here, and nothing else.

mod complaints;
pub mod desk;
mod diff;
mod facts;
mod interruptions;
mod removals;
mod scope;
pub mod site;
mod waiting;
