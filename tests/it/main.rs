//! Behaviour tests of the service: one file per behaviour.

mod harness;
mod model_client;
