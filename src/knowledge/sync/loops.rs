//! Pages that lead on to each other and never to a page.

use std::collections::{HashMap, HashSet};

use sqlx::FromRow;

use super::items::Place;
use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// The items that lead into a loop.
pub(super) fn find_lost(moved: &[MovedOn]) -> Vec<&MovedOn> {
    let next: HashMap<&str, &str> = moved
        .iter()
        .map(|item| (item.key.as_str(), item.moved_to.as_str()))
        .collect();
    let mut is_lost: HashMap<&str, bool> = HashMap::new();
    for item in moved {
        let mut path: HashSet<&str> = HashSet::new();
        let mut key = item.key.as_str();
        let verdict = loop {
            if let Some(known) = is_lost.get(key) {
                break *known;
            }
            let Some(to) = next.get(key) else { break false };
            if !path.insert(key) {
                break true;
            }
            key = to;
        };
        is_lost.extend(path.into_iter().map(|key| (key, verdict)));
    }
    let leads_round = |item: &&MovedOn| is_lost.get(item.key.as_str()) == Some(&true);
    moved.iter().filter(leads_round).collect()
}

/// An item that is known by another one's key.
#[derive(Debug, FromRow)]
pub(super) struct MovedOn {
    #[sqlx(rename = "item_key")]
    pub key: String,
    pub url: String,
    pub depth: i64,
    pub moved_to: String,
}

/// Items of the run that have moved to items that have moved, in the order of reading.
pub(super) async fn list_moved_on(conn: &mut Conn, place: Place) -> Result<Vec<MovedOn>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select i.item_key, i.url, i.depth, i.moved_to
           from source_item i
           join source_item target on target.source_id = i.source_id and target.item_key = i.moved_to
          where i.tenant_id = $1
            and i.source_id = $2
            and i.run_id = $3
            and i.state = 'moved'
            and target.run_id = $3
            and target.state = 'moved'
          order by i.depth, i.item_key",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).fetch_all(c).await)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(pairs: &[(&str, &str)]) -> Vec<MovedOn> {
        pairs
            .iter()
            .map(|(key, to)| MovedOn {
                key: (*key).to_owned(),
                url: (*key).to_owned(),
                depth: 0,
                moved_to: (*to).to_owned(),
            })
            .collect()
    }

    #[test]
    fn what_leads_into_a_loop_is_lost_and_what_leads_to_a_page_is_not() {
        let items = moved(&[
            ("start", "a"),
            ("a", "b"),
            ("b", "a"),
            ("late", "b"),
            ("x", "x"),
            ("chain", "link"),
            ("link", "page"),
        ]);

        let found: Vec<&str> = find_lost(&items).iter().map(|item| item.key.as_str()).collect();

        assert_eq!(found, ["start", "a", "b", "late", "x"]);
    }
}
