//! The website loader against sites on this machine: what it asks for, what it leaves alone, what it reports.

mod pages;
mod render;
mod robots;
mod site;
mod sitemaps;
