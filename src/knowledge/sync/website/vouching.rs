//! When a site's own list of pages is believed that a page is as it was.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use crate::knowledge::sync::items::{Item, KnownAs};

/// A page that a sitemap calls unchanged is asked for after this time all the same: sitemaps forget to say so.
const TRUSTED_FOR: TimeDelta = TimeDelta::days(7);

/// Whether the site's list of pages says that this one is as it was, for a page whose server cannot say so itself. A day
/// counts as a date only once it is over.
pub(super) fn is_vouched_for(item: &Item, now: DateTime<Utc>) -> bool {
    let has_validators = item.etag.is_some() || item.last_modified.is_some();
    if has_validators || item.known_as() != Some(KnownAs::Page) || item.document_id.is_none() {
        return false;
    }
    let (Some(read_at), Some(listed)) = (item.read_at, &item.listed_version) else {
        return false;
    };
    item.read_version.as_ref() == Some(listed)
        && now - read_at < TRUSTED_FOR
        && changed_until(listed).is_some_and(|changed| changed < read_at)
}

/// The end of the time at which a change with this date may have happened.
fn changed_until(lastmod: &str) -> Option<DateTime<Utc>> {
    let lastmod = lastmod.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(lastmod) {
        return Some(time.to_utc() + TimeDelta::seconds(1));
    }
    let day = NaiveDate::parse_from_str(lastmod, "%Y-%m-%d").ok()?;
    // Somewhere on earth the day lasts fourteen hours longer than here.
    Some(day.and_time(NaiveTime::MIN).and_utc() + TimeDelta::hours(24 + 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().expect("the test names a time")
    }

    fn read_page(lastmod: &str, read_at: &str) -> Item {
        Item {
            document_id: Some(crate::id::DocumentId::new()),
            listed_version: Some(lastmod.to_owned()),
            read_version: Some(lastmod.to_owned()),
            read_at: Some(time(read_at)),
            ..Item::known_page("https://example.org/a")
        }
    }

    #[test]
    fn a_sitemap_vouches_for_pages_that_were_read_after_their_date() {
        let now = time("2026-11-20T12:00:00Z");

        for (lastmod, read_at, is_vouched) in [
            ("2026-11-01", "2026-11-18T00:00:00Z", true),
            ("2026-11-01T08:00:00+01:00", "2026-11-18T00:00:00Z", true),
            // It may have changed later that day.
            ("2026-11-18", "2026-11-18T10:00:00Z", false),
            // Sitemaps forget to say that something changed.
            ("2026-11-01", "2026-11-10T00:00:00Z", false),
            ("yesterday", "2026-11-18T00:00:00Z", false),
        ] {
            assert_eq!(
                is_vouched_for(&read_page(lastmod, read_at), now),
                is_vouched,
                "{lastmod}"
            );
        }
        let changed = Item {
            listed_version: Some("2026-11-02".to_owned()),
            ..read_page("2026-11-01", "2026-11-18T00:00:00Z")
        };
        assert!(!is_vouched_for(&changed, now));
    }

    #[test]
    fn a_server_that_can_say_what_changed_is_asked() {
        let item = Item {
            etag: Some("\"1\"".to_owned()),
            ..read_page("2026-11-01", "2026-11-18T00:00:00Z")
        };

        assert!(!is_vouched_for(&item, time("2026-11-20T12:00:00Z")));
    }
}
