//! Sitemaps as they are found and read: indexes, limits, and whether a listing is complete.

use std::time::Duration;

use ingest::loader::web::{Credentials, Listing, Sitemaps};
use tokio::time::Instant;

use crate::site::{Reply, Site, in_time, loader_for};

const MAX_ENTRIES: usize = 100;

async fn list(site: &Site, max_entries: usize) -> Listing {
    let loader = loader_for(&[site]);
    let start = site.url("/");
    let robots = loader.robots(&start, in_time()).await.expect("readable");
    let mut sitemaps = Sitemaps::of_site(&start, &robots);
    let listing = loader
        .list(
            &mut sitemaps,
            &Credentials::none(),
            Duration::ZERO,
            max_entries,
            in_time(),
        )
        .await;
    assert!(sitemaps.is_done());
    listing
}

fn paths(listing: &Listing) -> Vec<&str> {
    listing.entries.iter().map(|entry| entry.address.path()).collect()
}

fn xml(body: &str) -> Reply {
    Reply::new(200, body).header("content-type", "application/xml")
}

#[tokio::test]
async fn the_sitemaps_that_robots_names_are_read_with_those_they_name() {
    let site = Site::of(&[
        ("/robots.txt", Reply::text("Sitemap: /index.xml\nSitemap: /more.txt")),
        (
            "/index.xml",
            xml("<sitemapindex><sitemap><loc>/one.xml</loc></sitemap><sitemap><loc>/one.xml</loc></sitemap></sitemapindex>"),
        ),
        (
            "/one.xml",
            xml("<urlset><url><loc>/a</loc><lastmod>2026</lastmod></url><url><loc>/b</loc></url></urlset>"),
        ),
        ("/sitemap.xml", xml("<urlset><url><loc>/not-asked</loc></url></urlset>")),
    ])
    .await;
    let listing = list(&site, MAX_ENTRIES).await;

    assert_eq!(paths(&listing), ["/a", "/b"]);
    assert_eq!(listing.entries[0].lastmod.as_deref(), Some("2026"));
    assert_eq!(site.count("/one.xml"), 1);
    assert_eq!(site.count("/sitemap.xml"), 0);
    let failures: Vec<&str> = listing.failures.iter().map(|(_, failure)| failure.code).collect();
    assert_eq!((failures, listing.is_complete), (vec!["sitemap_missing"], false));
}

#[tokio::test]
async fn the_usual_place_is_tried_when_robots_names_none() {
    let site = Site::of(&[("/sitemap.xml", xml("<urlset><url><loc>/a</loc></url></urlset>"))]).await;

    let listing = list(&site, MAX_ENTRIES).await;

    assert_eq!(paths(&listing), ["/a"]);
    assert!(listing.is_complete);
    assert_eq!(site.count("/sitemap.xml"), 1);
}

#[tokio::test]
async fn a_site_without_sitemaps_has_an_empty_listing_and_no_failure() {
    let answers_everything = Site::start(|seen| match seen.path.as_str() {
        "/robots.txt" => Reply::new(404, ""),
        _ => Reply::html("<html><p>Welcome"),
    })
    .await;
    for site in [Site::of(&[]).await, answers_everything] {
        let listing = list(&site, MAX_ENTRIES).await;

        assert!(listing.entries.is_empty() && listing.failures.is_empty() && listing.is_complete);
    }
}

#[tokio::test]
async fn a_usual_place_that_fails_leaves_the_listing_incomplete() {
    let site = Site::of(&[("/sitemap.xml", Reply::new(500, ""))]).await;

    let listing = list(&site, MAX_ENTRIES).await;

    assert_eq!(listing.failures[0].1.code, "server_error");
    assert!(!listing.is_complete);
}

#[tokio::test]
async fn indexes_that_name_indexes_end() {
    let site = Site::start(|seen| match seen.path.as_str() {
        "/robots.txt" => Reply::text("Sitemap: /0.xml"),
        path => {
            let number: u32 = path
                .trim_matches(|c: char| !c.is_ascii_digit())
                .parse()
                .unwrap_or(0);
            xml(&format!(
                "<sitemapindex><sitemap><loc>/{}.xml</loc></sitemap></sitemapindex>",
                number + 1
            ))
        }
    })
    .await;

    let listing = list(&site, MAX_ENTRIES).await;

    assert_eq!(site.asked(), ["/0.xml", "/1.xml"]);
    assert!(!listing.is_complete);
}

#[tokio::test]
async fn no_more_entries_are_listed_than_asked_for() {
    let body: String = (0..50).map(|i| format!("<url><loc>/{i}</loc></url>")).collect();
    let site = Site::of(&[("/sitemap.xml", xml(&format!("<urlset>{body}</urlset>")))]).await;

    let listing = list(&site, 10).await;

    assert_eq!((listing.entries.len(), listing.is_complete), (10, false));
}

#[tokio::test]
async fn a_listing_goes_on_where_it_stopped_and_reads_no_file_twice() {
    let site = Site::of(&[
        (
            "/index.xml",
            xml("<sitemapindex><sitemap><loc>/one.xml</loc></sitemap><sitemap><loc>/two.xml</loc></sitemap></sitemapindex>"),
        ),
        ("/one.xml", xml("<urlset><url><loc>/a</loc></url></urlset>")),
        ("/two.xml", xml("<urlset><url><loc>/b</loc></url></urlset>")),
    ])
    .await;
    let loader = loader_for(&[&site]);
    let mut sitemaps = Sitemaps::named(&[site.url("/index.xml")]);
    let mut found = Vec::new();
    let mut sittings = 0;

    // The owner's pause is longer than anybody waits, so that each sitting reads one file.
    while !sitemaps.is_done() {
        let kept = serde_json::to_string(&sitemaps).expect("kept as text");
        sitemaps = serde_json::from_str(&kept).expect("and read again");
        let delay = Duration::from_secs(3);
        let listing = loader
            .list(&mut sitemaps, &Credentials::none(), delay, MAX_ENTRIES, in_time())
            .await;
        assert!(listing.is_complete);
        found.extend(paths(&listing).iter().map(ToString::to_string));
        sittings += 1;
        if let Some(pause) = listing.pause {
            assert!(pause > Duration::from_secs(1), "{pause:?}");
            tokio::time::sleep(pause).await;
        }
    }

    assert_eq!(found, ["/a", "/b"]);
    assert!(sittings >= 3, "{sittings}");
    for path in ["/index.xml", "/one.xml", "/two.xml"] {
        assert_eq!(site.count(path), 1, "{path}");
    }
}

#[tokio::test]
async fn a_sitemap_is_asked_for_at_the_pace_that_the_site_wishes_for() {
    let site = Site::of(&[
        ("/robots.txt", Reply::text("User-agent: *\nCrawl-delay: 10")),
        ("/sitemap.xml", xml("<urlset><url><loc>/a</loc></url></urlset>")),
    ])
    .await;
    let loader = loader_for(&[&site]);
    let mut sitemaps = Sitemaps::named(&[site.url("/sitemap.xml")]);

    let listing = loader
        .list(
            &mut sitemaps,
            &Credentials::none(),
            Duration::ZERO,
            MAX_ENTRIES,
            in_time(),
        )
        .await;

    assert!(
        listing.pause.is_some_and(|pause| pause > Duration::from_secs(5)),
        "{:?}",
        listing.pause
    );
    assert_eq!(site.count("/sitemap.xml"), 0);
    assert!(!sitemaps.is_done());
}

#[tokio::test]
async fn a_listing_ends_when_its_time_is_over_and_knows_what_is_left() {
    let site = Site::of(&[("/sitemap.xml", xml("<urlset><url><loc>/a</loc></url></urlset>"))]).await;
    let mut sitemaps = Sitemaps::named(&[site.url("/sitemap.xml")]);

    let listing = loader_for(&[&site])
        .list(
            &mut sitemaps,
            &Credentials::none(),
            Duration::ZERO,
            MAX_ENTRIES,
            Instant::now(),
        )
        .await;

    assert!(listing.entries.is_empty() && listing.is_complete && !sitemaps.is_done());
    assert!(site.asked().is_empty());
}
