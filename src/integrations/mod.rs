//! Accounts with other services that a tenant lets us into.

pub mod google;
