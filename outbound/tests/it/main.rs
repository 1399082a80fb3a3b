//! The guarded client against servers on this machine: what it refuses, what it drops, where it stops.

#![expect(
    clippy::disallowed_methods,
    reason = "the test of the environment has to read it"
)]

mod body;
mod destinations;
mod proxy;
mod redirects;
mod server;
mod transport;
