//! After a sync of a Drive the knowledge is what the Drive shows, whatever happened to it and on the way.

pub mod desk;
mod failing;
mod following;
mod kills;
mod syncing;
mod trouble;
