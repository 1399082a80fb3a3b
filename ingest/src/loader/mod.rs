//! Fetches what a source is made of. One module per kind of source; none of them knows the service's database.

pub mod drive;
pub mod web;
