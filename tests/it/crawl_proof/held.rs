//! What a crawl holds: every page there is, once, with its own text; and of endless things an end.

use frontdesk::knowledge::sync::RunState;

use super::{AT_ONCE, chunks, desk_for, options_for, site};

#[tokio::test]
async fn a_crawl_holds_every_page_once_and_nothing_else() {
    let site = site(240).await;
    let service = options_for(&site).start().await;
    let desk = desk_for(&service, &site).await;

    let run = desk.sync().await;

    let manifest = site.manifest();
    let (bounded, held): (Vec<String>, Vec<String>) = desk
        .paths()
        .await
        .into_iter()
        .partition(|path| manifest.is_bounded(path));
    let expected: Vec<&str> = manifest.expected.iter().map(|page| page.path.as_str()).collect();
    assert_eq!(held, expected);
    for family in &manifest.bounded {
        let members = bounded.iter().filter(|path| path.starts_with(family.prefix));
        assert!((1..=family.most).contains(&members.count()), "{bounded:?}");
    }
    let unreadable: Vec<String> = desk
        .failures(&run)
        .await
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    assert_eq!(unreadable, manifest.unreadable);
    assert_eq!(run.state, RunState::Partial, "{run:?}");
    assert_eq!(
        run.new_count,
        i64::try_from(held.len() + bounded.len()).expect("few")
    );
}

#[tokio::test]
async fn every_page_is_held_with_its_own_text_and_without_what_surrounds_it() {
    let site = site(120).await;
    let service = options_for(&site).start().await;
    let desk = desk_for(&service, &site).await;

    desk.sync().await;

    let (manifest, held) = (site.manifest(), chunks(&desk).await);
    for page in &manifest.expected {
        let text = held[&page.path].join("\n");
        assert!(text.contains(&page.marker), "{}: {text}", page.path);
        let others = held
            .iter()
            .filter(|(path, texts)| **path != page.path && texts.join("\n").contains(&page.marker));
        assert_eq!(others.count(), 0, "{}", page.path);
    }
    for (path, texts) in &held {
        for phrase in manifest.boilerplate {
            assert!(!texts.join("\n").contains(phrase), "{path} has {phrase:?}");
        }
    }
}

#[tokio::test]
async fn a_crawl_is_a_polite_guest() {
    let site = site(120).await;
    let service = options_for(&site).start().await;
    let desk = desk_for(&service, &site).await;

    desk.sync().await;

    let counts = site.counts();
    assert!(counts.at_once <= AT_ONCE, "{counts:?}");
    assert_eq!(counts.trespasses, 0, "{counts:?}");
    assert!(counts.requests <= desk.documents().await.len() + 40, "{counts:?}");
}
