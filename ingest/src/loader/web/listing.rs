//! All pages that the sitemaps of a site name, over indexes and within limits.

use std::collections::HashSet;

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
}

impl WebLoader {
    /// The pages of the sitemaps that `robots` names or, if it names none, of `/sitemap.xml`; at most `max_entries`.
    /// A site without sitemaps has an empty, complete listing.
    pub async fn list_site(
        &self,
        site: &Url,
        robots: &Robots,
        credentials: &Credentials,
        max_entries: usize,
    ) -> Listing {
        let named = robots.sitemaps(site);
        if !named.is_empty() {
            return self.list(&named, Promised::Yes, credentials, max_entries).await;
        }
        match site.join("/sitemap.xml") {
            Ok(usual) => self.list(&[usual], Promised::No, credentials, max_entries).await,
            Err(_) => Listing::empty(),
        }
    }

    /// The pages of these sitemaps and of those they name; at most `max_entries`.
    pub async fn list_sitemaps(
        &self,
        roots: &[Url],
        credentials: &Credentials,
        max_entries: usize,
    ) -> Listing {
        self.list(roots, Promised::Yes, credentials, max_entries).await
    }

    async fn list(
        &self,
        roots: &[Url],
        roots_are: Promised,
        credentials: &Credentials,
        max_entries: usize,
    ) -> Listing {
        let mut listing = Listing::empty();
        let mut known: HashSet<Url> = roots.iter().cloned().collect();
        let mut listed: HashSet<Url> = HashSet::new();
        let mut level: Vec<Url> = roots.to_vec();
        let mut files = 0;
        for depth in 1..=MAX_LEVEL {
            let mut below = Vec::new();
            for location in level {
                if files == MAX_FILES || listing.entries.len() >= max_entries {
                    listing.is_complete = false;
                    return listing;
                }
                files += 1;
                let promised = depth > 1 || roots_are == Promised::Yes;
                let sitemap = match self.sitemap(&location, credentials).await {
                    Ok(Some(sitemap)) => sitemap,
                    Ok(None) if !promised => continue,
                    // Many sites answer everything with a page.
                    Err(failure) if !promised && failure.code == "bad_sitemap" => continue,
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
                    if listing.entries.len() == max_entries {
                        listing.is_complete = false;
                        break;
                    }
                    listed.insert(entry.address.clone());
                    listing.entries.push(entry);
                }
                if depth < MAX_LEVEL {
                    below.extend(
                        sitemap
                            .sitemaps
                            .into_iter()
                            .filter(|named| known.insert(named.clone())),
                    );
                } else if !sitemap.sitemaps.is_empty() {
                    listing.is_complete = false;
                }
            }
            level = below;
        }
        listing
    }
}

/// Whether somebody said that the first files exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promised {
    Yes,
    No,
}

fn missing() -> FetchFailure {
    FetchFailure::new(
        "sitemap_missing",
        "There is no sitemap at this address.",
        Retry::Never,
    )
}

impl Listing {
    fn empty() -> Self {
        Self {
            is_complete: true,
            ..Self::default()
        }
    }

    fn fail(&mut self, location: Url, failure: FetchFailure) {
        self.is_complete = false;
        self.failures.push((location, failure));
    }
}
