//! Sitemaps as they are found and read: indexes, limits, and whether a listing is complete.

use ingest::loader::web::{Credentials, Listing};

use crate::site::{Reply, Site, loader_for};

const MAX_ENTRIES: usize = 100;

async fn list(site: &Site, max_entries: usize) -> Listing {
    let loader = loader_for(&[site]);
    let start = site.url("/");
    let robots = loader.robots(&start).await.expect("readable");
    loader
        .list_site(&start, &robots, &Credentials::none(), max_entries)
        .await
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
