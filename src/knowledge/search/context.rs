//! What stands around found passages: the chunks next to them, the rest of their section, and the section above it. They
//! are passages of their own in the prompt, so that a citation names the span that it was taken from.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use retrieval::index::Audience;

use super::{Passage, rows};
use crate::app::App;
use crate::error::Result;
use crate::http::access::Reach;
use crate::id::{ChatbotId, CutId, DocumentId};
use crate::knowledge::{HEADING_SEPARATOR, passages};

/// Chunks before and behind a passage that are looked at.
const REACH: i64 = 8;

/// What is left of a passage's score for each chunk between it and one around it.
const FADING: f32 = 0.5;

/// The chunks around `found` passages, the best of which comes first, in so many tokens of the answering model; the nearest
/// first.
pub async fn around(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    audience: &Audience,
    found: &[Passage],
    most_tokens: usize,
) -> Result<Vec<Passage>> {
    let mut surroundings = Vec::new();
    let mut conn = app.db.read(reach.tenant_id).await?;
    for (place, stretch) in stretches(found) {
        let rows = passages::find_stretch(&mut conn, reach.tenant_id, chatbot_id, place, stretch).await?;
        let open = rows.into_iter().filter(|row| row.is_open_to(audience));
        surroundings.extend(open.map(rows::around));
    }
    drop(conn);
    Ok(choose(found, surroundings, most_tokens))
}

/// A document, the cut of it that is looked at, and when the version that was found was indexed.
type Place = (DocumentId, CutId, DateTime<Utc>);

/// The positions to look at in each document; none twice.
fn stretches(found: &[Passage]) -> Vec<(Place, (i64, i64))> {
    let mut places: Vec<(Place, i64)> = found
        .iter()
        .map(|passage| {
            let place = (passage.document_id, passage.cut, passage.indexed_at);
            (place, passage.position)
        })
        .collect();
    places.sort_unstable();
    let mut stretches: Vec<(Place, (i64, i64))> = Vec::new();
    for (place, position) in places {
        let (first, last) = (position - REACH, position + REACH);
        match stretches.last_mut() {
            Some((of, (_, end))) if *of == place && first <= *end + 1 => *end = last,
            _ => stretches.push((place, (first, last))),
        }
    }
    stretches
}

/// Those of `surroundings` that belong to a found passage, the nearest first, as far as `most_tokens` go.
fn choose(found: &[Passage], surroundings: Vec<Passage>, most_tokens: usize) -> Vec<Passage> {
    let mut of_document: HashMap<DocumentId, Vec<(usize, &Passage)>> = HashMap::new();
    for (rank, passage) in found.iter().enumerate() {
        let places = of_document.entry(passage.document_id).or_default();
        places.push((rank, passage));
    }
    let mut around: Vec<(Nearness, Passage)> = Vec::new();
    for mut passage in surroundings {
        let places = of_document.get(&passage.document_id).map(Vec::as_slice);
        let places = places.unwrap_or_default();
        if places.iter().any(|(_, other)| other.position == passage.position) {
            continue;
        }
        let nearest = places
            .iter()
            .filter_map(|(rank, other)| Some((Nearness::of(&passage, other, *rank)?, other.score)))
            .min_by_key(|(nearness, _)| *nearness);
        if let Some((nearness, score)) = nearest {
            passage.score = score * FADING.powi(nearness.distance as i32);
            around.push((nearness, passage));
        }
    }
    around.sort_by_key(|(nearness, _)| *nearness);
    let mut left = most_tokens;
    around.retain(|(_, passage)| {
        let tokens = passage.count_prompt_tokens();
        let fits = tokens <= left;
        left -= if fits { tokens } else { 0 };
        fits
    });
    around.into_iter().map(|(_, passage)| passage).collect()
}

/// How near a chunk is to a found passage; less is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Nearness {
    step: Step,
    distance: i64,
    /// Of the passage.
    rank: usize,
}

/// In the order in which tokens are spent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    NextInSection,
    NextInParent,
    Section,
    Parent,
}

impl Nearness {
    /// None: it is of another section altogether, or too far.
    fn of(passage: &Passage, found: &Passage, rank: usize) -> Option<Self> {
        let distance = (passage.position - found.position).abs();
        if distance > REACH {
            return None;
        }
        let (own, other) = (section(passage), section(found));
        let (own_parent, other_parent) = (above(&own), above(&other));
        let step = if own == other {
            [Step::NextInSection, Step::Section]
        } else if own == other_parent
            || own_parent == other
            || (own_parent == other_parent && !own_parent.is_empty())
        {
            [Step::NextInParent, Step::Parent]
        } else {
            return None;
        };
        Some(Self {
            step: step[usize::from(distance > 1)],
            distance,
            rank,
        })
    }
}

/// The headings above a passage, from the outermost.
fn section(passage: &Passage) -> Vec<&str> {
    let heading = passage.heading.as_deref().unwrap_or_default();
    heading
        .split(HEADING_SEPARATOR)
        .filter(|part| !part.is_empty())
        .collect()
}

/// The section above one.
fn above<'a, 'p>(section: &'a [&'p str]) -> &'a [&'p str] {
    section.split_last().map_or(&[], |(_, above)| above)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::search::tests::passage;

    fn at(document_id: DocumentId, position: i64, heading: &str) -> Passage {
        Passage {
            document_id,
            cut: CutId(document_id.0),
            position,
            heading: (!heading.is_empty()).then(|| heading.replace('/', HEADING_SEPARATOR)),
            prompt_tokens: 10,
            score: 0.8,
            ..passage("text")
        }
    }

    fn positions(found: &[Passage], surroundings: &[Passage], most_tokens: usize) -> Vec<i64> {
        let chosen = choose(found, surroundings.to_vec(), most_tokens);
        chosen.iter().map(|passage| passage.position).collect()
    }

    #[test]
    fn neighbours_come_before_the_section_and_that_before_the_one_above() {
        let id = DocumentId::new();
        let found = [at(id, 4, "Guide/Care")];
        let surroundings = [
            at(id, 0, "Other"),
            at(id, 1, "Guide"),
            at(id, 2, "Guide/Care"),
            at(id, 3, "Guide/Care"),
            at(id, 4, "Guide/Care"),
            at(id, 5, "Guide/Oil"),
            at(id, 6, "Guide/Oil"),
            at(id, 7, "Other"),
        ];

        assert_eq!(positions(&found, &surroundings, 1000), [3, 5, 2, 6, 1]);
        assert_eq!(positions(&found, &surroundings, 25), [3, 5]);
        assert!(positions(&found, &surroundings, 9).is_empty());
    }

    #[test]
    fn where_there_are_no_headings_what_is_next_is_near() {
        let (id, other) = (DocumentId::new(), DocumentId::new());
        let found = [at(id, 4, ""), at(other, 0, "")];
        let surroundings = [at(id, 3, ""), at(id, 6, ""), at(other, 1, "")];

        assert_eq!(positions(&found, &surroundings, 1000), [3, 1, 6]);
        assert_eq!(choose(&found, surroundings.to_vec(), 1000)[0].score, 0.4);
    }

    #[test]
    fn no_place_is_looked_at_twice() {
        let (one, two) = (DocumentId::new(), DocumentId::new());
        let found = [at(two, 50, ""), at(one, 3, ""), at(one, 90, ""), at(one, 10, "")];

        let expected = [(one, (-5, 18)), (one, (82, 98)), (two, (42, 58))]
            .map(|(id, stretch)| ((id, CutId(id.0), DateTime::<Utc>::UNIX_EPOCH), stretch));
        assert_eq!(stretches(&found), expected);
    }
}
