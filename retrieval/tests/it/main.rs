//! Behaviour of the crate through its public types.

mod conformance;
mod crash;
mod embedded_index;
mod samples;
