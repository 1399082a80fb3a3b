//! All pages that the sitemaps of a site name, over indexes and within limits, in as many sittings as it takes.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;

use super::credentials::Credentials;
use super::failure::FetchFailure;
use super::robots::Robots;
use super::sitemap::Entry;
use super::{Retry, WebLoader};

/// An index may name sitemaps, and those may not name further ones.
const MAX_LEVEL: u32 = 2;

/// Files read for one listing.
const MAX_FILES: usize = 500;

/// A sitting ends when it has so many entries: as many as one file may have.
const ENTRIES_AT_ONCE: usize = super::sitemap::MAX_ENTRIES;

/// The sitemaps of a site, and how far they are read. It is what a listing that goes on later needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sitemaps {
    /// In the order of reading.
    files: Vec<File>,
    /// Files that were read.
    read: usize,
    /// Pages that they named.
    entries: usize,
    /// Whether somebody said that the first files exist.
    are_promised: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    address: String,
    /// 1 for those that a listing begins with.
    level: u32,
}

/// What the sitemaps of a site name.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Each address once, in the order of the files.
    pub entries: Vec<Entry>,
    /// Sitemaps that are named somewhere and could not be read.
    pub failures: Vec<(Url, FetchFailure)>,
    /// Files that were read as sitemaps.
    pub sitemaps_read: usize,
    /// False if something named is not in `entries`: a file failed or broke off, or a limit was reached. What is absent
    /// from an incomplete listing is not known to be gone.
    pub is_complete: bool,
    /// There are more pages than were asked for.
    pub is_cut: bool,
    /// The host is to be left alone for so long before the rest is read.
    pub pause: Option<Duration>,
}

impl Sitemaps {
    /// Those that `robots` names or, if it names none, `/sitemap.xml`, which a site may well not have.
    pub fn of_site(site: &Url, robots: &Robots) -> Self {
        let named = robots.sitemaps(site);
        if !named.is_empty() {
            return Self::named(&named);
        }
        Self {
            are_promised: false,
            ..Self::named(&Vec::from_iter(site.join("/sitemap.xml")))
        }
    }

    /// These, and those that they name.
    pub fn named(roots: &[Url]) -> Self {
        let mut sitemaps = Self {
            files: Vec::new(),
            read: 0,
            entries: 0,
            are_promised: true,
        };
        let mut known = HashSet::new();
        for root in roots.iter().take(MAX_FILES) {
            if known.insert(root) {
                sitemaps.files.push(File {
                    address: root.to_string(),
                    level: 1,
                });
            }
        }
        sitemaps
    }

    /// Whether all of them are read.
    pub fn is_done(&self) -> bool {
        self.read >= self.files.len()
    }

    fn next(&self) -> Option<(Url, u32)> {
        let file = self.files.get(self.read)?;
        Some((Url::parse(&file.address).ok()?, file.level))
    }

    /// Queues sitemaps that one of `level` names, each once; false when there are too many, or they are too deep.
    fn queue(&mut self, named: Vec<Url>, level: u32) -> bool {
        if named.is_empty() {
            return true;
        }
        if level >= MAX_LEVEL {
            return false;
        }
        let mut known: HashSet<String> = self.files.iter().map(|file| file.address.clone()).collect();
        for address in named {
            let address = String::from(address);
            if known.contains(&address) {
                continue;
            }
            if self.files.len() == MAX_FILES {
                return false;
            }
            known.insert(address.clone());
            self.files.push(File {
                address,
                level: level + 1,
            });
        }
        true
    }

    fn end(&mut self) {
        self.files.truncate(self.read);
    }
}

impl WebLoader {
    /// Reads sitemaps on from where they stand, until all are read, a good many pages are listed, the host wishes for a
    /// pause, or `begin_until`; at most `max_entries` pages over all sittings. `delay` is the pause between requests that
    /// the owner of the source wishes for. A site without sitemaps has an empty, complete listing.
    pub async fn list(
        &self,
        sitemaps: &mut Sitemaps,
        credentials: &Credentials,
        delay: Duration,
        max_entries: usize,
        begin_until: Instant,
    ) -> Listing {
        let mut listing = Listing {
            is_complete: true,
            ..Listing::default()
        };
        let mut listed: HashSet<Url> = HashSet::new();
        while let Some((location, level)) = sitemaps.next() {
            if sitemaps.entries >= max_entries {
                listing.cut();
                sitemaps.end();
                break;
            }
            if listing.entries.len() >= ENTRIES_AT_ONCE || Instant::now() >= begin_until {
                break;
            }
            let is_promised = level > 1 || sitemaps.are_promised;
            let sitemap = match self.sitemap(&location, credentials, delay, begin_until).await {
                Err(failure) if failure.host_pause().is_some() => {
                    listing.pause = failure.host_pause();
                    break;
                }
                read => read,
            };
            sitemaps.read += 1;
            let sitemap = match sitemap {
                Ok(Some(sitemap)) => sitemap,
                Ok(None) if !is_promised => continue,
                // Many sites answer everything with a page.
                Err(failure) if !is_promised && failure.code == "bad_sitemap" => continue,
                Ok(None) => {
                    listing.fail(location, missing());
                    continue;
                }
                Err(failure) => {
                    listing.fail(location, failure);
                    continue;
                }
            };
            listing.sitemaps_read += 1;
            listing.is_complete &= sitemap.is_complete;
            for entry in sitemap.pages {
                if listed.contains(&entry.address) {
                    continue;
                }
                if sitemaps.entries == max_entries {
                    listing.cut();
                    break;
                }
                listed.insert(entry.address.clone());
                listing.entries.push(entry);
                sitemaps.entries += 1;
            }
            listing.is_complete &= sitemaps.queue(sitemap.sitemaps, level);
        }
        listing
    }
}

fn missing() -> FetchFailure {
    FetchFailure::new(
        "sitemap_missing",
        "There is no sitemap at this address.",
        Retry::Never,
    )
}

impl Listing {
    fn cut(&mut self) {
        self.is_complete = false;
        self.is_cut = true;
    }

    fn fail(&mut self, location: Url, failure: FetchFailure) {
        self.is_complete = false;
        self.failures.push((location, failure));
    }
}
