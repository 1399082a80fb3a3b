use super::*;
use crate::{Metadata, WebPage};

fn read(page: &str) -> ExtractedDocument {
    extract(page.as_bytes(), &Hints::default(), &Limits::default()).expect("the page has text")
}

fn facts(page: &str) -> (Metadata, WebPage) {
    let document = read(page);
    (document.metadata, document.web.expect("a page has facts"))
}

#[test]
fn a_page_says_where_it_belongs_and_where_it_leads() {
    let (_, web) = facts(
        "<base href='https://a.example/x/'><link rel='shortlink canonical' href=' /c '><link rel=canonical href=/d>
         <link rel=next href='?page=2'><meta http-equiv=Refresh content='0;url=/moved'>
         <nav><a href=one>1</a><a href=one>1</a></nav><p hidden><a href=two>2</a>
         <p>text <a href='#top'>top</a><a href='JavaScript:void(0)'>x</a><a href='mailto:a@b.example'>m</a>
         <a rel='noopener nofollow' href=three>3</a><map><area href=four></map><!-- <a href=five> -->",
    );

    assert_eq!(web.base.as_deref(), Some("https://a.example/x/"));
    assert_eq!(web.canonical.as_deref(), Some("/c"));
    assert_eq!(web.refresh.as_deref(), Some("/moved"));
    assert_eq!(web.links, ["?page=2", "one", "two", "four"]);
    assert!(!web.noindex && !web.nofollow);
}

#[test]
fn crawlers_are_obeyed_when_all_or_this_one_are_addressed() {
    let robots = |head: &str| {
        let (_, web) = facts(&format!("{head}<p>text"));
        (web.noindex, web.nofollow)
    };

    assert_eq!(
        robots("<meta name=ROBOTS content='NoIndex, follow'>"),
        (true, false)
    );
    assert_eq!(robots("<meta name=robots content=none>"), (true, true));
    assert_eq!(robots("<meta name=frontdesk content=nofollow>"), (false, true));
    assert_eq!(robots("<meta name=otherbot content=none>"), (false, false));
    assert_eq!(robots("<!-- <meta name=robots content=none> -->"), (false, false));
}

#[test]
fn links_are_limited_in_number_and_length() {
    let long = format!("<p>text <a href='/{}'>x</a>", "a".repeat(3_000));
    let many: String = (0..6_000).map(|n| format!("<a href=/{n}>x</a>")).collect();

    assert_eq!(facts(&long).1.links.len(), 0);
    assert_eq!(facts(&many).1.links.len(), 5_000);
}

#[test]
fn language_description_and_day_are_taken_from_where_pages_put_them() {
    let (metadata, _) = facts(
        "<html lang=de_at><meta name=description content=' Über\n uns '><meta property='og:description' content=no>
         <meta property='article:published_time' content='2024-05-06T07:08:09+02:00'>
         <time class=entry-date datetime=2020-01-01>then</time><p>text",
    );

    assert_eq!(metadata.language.as_deref(), Some("de-AT"));
    assert_eq!(metadata.description.as_deref(), Some("Über uns"));
    assert_eq!(metadata.published_at.as_deref(), Some("2024-05-06T05:08:09Z"));
}

#[test]
fn structured_data_dates_a_page_and_is_no_text() {
    let document = read(
        r#"<script type="application/ld+json">{"@type":"NewsArticle","datePublished":"2023-02-01","articleBody":"trap"}</script>
           <meta name=date content=2001-01-01><p>text"#,
    );

    assert_eq!(document.metadata.published_at.as_deref(), Some("2023-02-01"));
    assert_eq!(document.text, "text");
}

#[test]
fn the_trail_above_a_page_is_read_from_its_breadcrumbs() {
    let (metadata, _) = facts(
        "<title>Mugs</title><nav aria-label=Breadcrumb><ol><li><a href=/>Shop</a> › <li><a href=/k>Kitchen &amp; home</a>
         <li>Mugs</ol></nav><nav>menu</nav><h1>Mugs</h1><p>text",
    );

    assert_eq!(metadata.breadcrumbs, ["Shop", "Kitchen & home"]);
}

#[test]
fn a_trail_that_never_ends_is_none() {
    let (metadata, _) = facts(&format!(
        "<div class=breadcrumbs>{}",
        "<div>a</div>".repeat(1_000)
    ));

    assert!(metadata.breadcrumbs.is_empty());
}

#[test]
fn a_page_is_called_by_its_heading_and_not_by_its_site() {
    let title = |page: &str| read(page).title;

    assert_eq!(
        title("<title>Mugs | Shop</title><h1>Mugs</h1><p>text").as_deref(),
        Some("Mugs")
    );
    assert_eq!(
        title("<meta property='og:site_name' content=Shop><title>Blue mugs - Shop</title><h1>Welcome!</h1><p>text").as_deref(),
        Some("Blue mugs")
    );
    assert_eq!(
        title("<title>Questions - and answers</title><p>text").as_deref(),
        Some("Questions - and answers")
    );
    assert_eq!(
        title("<h2>News</h2><h1>Only this</h1>").as_deref(),
        Some("Only this")
    );
}

#[test]
fn the_server_knows_the_encoding_better_than_the_page() {
    let page = b"<meta charset=iso-8859-1><p>\xcf\xf0\xe8\xe2\xe5\xf2";
    let hints = Hints {
        charset: Some("windows-1251".to_owned()),
        ..Hints::default()
    };

    let document = extract(page, &hints, &Limits::default()).expect("the page has text");

    assert_eq!(document.text, "Привет");
}

#[test]
fn a_broken_character_does_not_spoil_the_others() {
    let page = [
        "<meta charset=utf-8><p>größer, schöner, süßer, öfter, überall, äußerst ".as_bytes(),
        b"\xff",
        " Übung".as_bytes(),
    ]
    .concat();

    let document = extract(&page, &Hints::default(), &Limits::default()).expect("the page has text");

    assert!(document.text.starts_with("größer, schöner"), "{}", document.text);
}
