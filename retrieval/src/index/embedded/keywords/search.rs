//! BM25 over one tenant's chunks, in memory and in files.

use std::io;

use super::facets::FacetTable;
use super::fresh::FreshTenant;
use super::segment::{Block, Segment};
use super::weight::{contributions, inverse_document_frequency};
use super::{Keywords, format};
use crate::analysis::QueryTerms;
use crate::index::embedded::filter::TenantFilter;
use crate::{ChunkId, DocumentId, SourceId};

/// A chunk that was found by its words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct Found {
    pub(in super::super) chunk_id: ChunkId,
    pub(in super::super) score: f32,
}

/// What was found by words.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct FoundByWords {
    /// Best first.
    pub(in super::super) hits: Vec<Found>,
    /// The score of a chunk that said nothing but the question's words, and said them often.
    pub(in super::super) ceiling: f32,
    /// As [`Candidates::names_rare_code`](crate::index::Candidates::names_rare_code).
    pub(in super::super) names_rare_code: bool,
}

/// What a question comes to among the tenant's chunks.
struct LookedUp<'a> {
    /// Where these are.
    parts: Vec<Part<'a>>,
    /// What to look for, which follows from what they have.
    asked: QueryTerms,
    /// The inverse document frequency of each term among all of them.
    frequencies: Vec<f32>,
    names_rare_code: bool,
}

/// A part of the index that holds some of the tenant's chunks.
enum Part<'a> {
    Fresh(&'a FreshTenant),
    File {
        segment: &'a Segment,
        block: &'a Block,
        /// Per term of the question: where its postings begin and end.
        postings: Vec<Option<(u64, u64)>>,
    },
}

/// Which chunks the search may see.
struct Gate<'a> {
    filter: &'a TenantFilter,
    facets: &'a FacetTable,
    /// Whether the filter asks for anything that is among the facets.
    needs_facets: bool,
}

/// A chunk on its way into the answer.
#[derive(Clone, Copy)]
struct Candidate {
    score: f32,
    part: usize,
    position: u32,
}

pub(super) fn search(
    keywords: &Keywords,
    filter: &TenantFilter,
    terms: &QueryTerms,
    limit: usize,
) -> io::Result<FoundByWords> {
    if limit == 0 || terms.hashes.is_empty() {
        return Ok(FoundByWords::default());
    }
    let gate = Gate {
        filter,
        facets: &keywords.facets,
        needs_facets: filter.asks_facets(keywords.facets.has_restricted(filter.tenant_id())),
    };
    let LookedUp {
        parts,
        asked,
        frequencies,
        names_rare_code,
    } = look_up(keywords, &gate, terms)?;
    let terms = &asked.hashes;
    // What each stored weight of each term adds to a score.
    let weights: Vec<[f32; 256]> = frequencies.iter().copied().map(contributions).collect();
    let mut best = Best::new(limit);
    for (number, part) in parts.iter().enumerate() {
        part.collect(number, &gate, terms, &weights, &mut best)?;
    }
    let best = best.into_sorted();
    let mut ids_of = parts
        .iter()
        .enumerate()
        .map(|(number, part)| {
            let of_part = best.iter().filter(|candidate| candidate.part == number);
            let positions: Vec<u32> = of_part.map(|candidate| candidate.position).collect();
            Ok(part.chunks_at(&positions)?.into_iter())
        })
        .collect::<io::Result<Vec<_>>>()?;
    let found = best.iter().filter_map(|candidate| {
        Some(Found {
            chunk_id: ids_of[candidate.part].next()?,
            score: candidate.score,
        })
    });
    Ok(FoundByWords {
        hits: found.collect(),
        ceiling: asked.ceiling(&frequencies),
        names_rare_code,
    })
}

fn look_up<'a>(keywords: &'a Keywords, gate: &Gate<'_>, asked: &QueryTerms) -> io::Result<LookedUp<'a>> {
    let tenant_id = gate.filter.tenant_id();
    let terms = asked.with_all_parts();
    let mut having = vec![0_u64; terms.len()];
    let mut chunks = 0;
    let mut parts = Vec::new();
    for segment in &keywords.segments {
        let Some(block) = segment.block(tenant_id).filter(|block| block.live_count() > 0) else {
            continue;
        };
        chunks += u64::from(block.place.chunks);
        let mut postings = Vec::with_capacity(terms.len());
        for (term, having) in terms.iter().zip(&mut having) {
            let found = segment.find_term(block, *term)?;
            *having += found.map_or(0, |(entry, _)| u64::from(entry.having));
            postings.push(found.map(|(entry, end)| (entry.start, end)));
        }
        parts.push(Part::File {
            segment,
            block,
            postings,
        });
    }
    if let Some(tenant) = keywords.fresh.tenant(tenant_id) {
        chunks += tenant.chunks().len() as u64;
        for (term, having) in terms.iter().zip(&mut having) {
            *having += tenant.postings(*term).len() as u64;
        }
        parts.push(Part::Fresh(tenant));
    }
    let unseen = unseen_codes(&parts, gate, (asked, &terms))?;
    let having_of = |term| match terms.binary_search(&term) {
        Ok(place) if !unseen.contains(&term) => having[place],
        _ => 0,
    };
    let settled = asked.settle(having_of);
    let names_rare_code = asked.name_rare_code(having_of);
    if settled.hashes.len() < terms.len() {
        let mut is_kept = terms
            .iter()
            .map(|term| settled.hashes.binary_search(term).is_ok())
            .cycle();
        for part in &mut parts {
            if let Part::File { postings, .. } = part {
                postings.retain(|_| is_kept.next().unwrap_or(true));
            }
        }
        having.retain(|_| is_kept.next().unwrap_or(true));
    }
    let frequencies = having
        .into_iter()
        .map(|having| inverse_document_frequency(chunks, having.max(1)));
    Ok(LookedUp {
        parts,
        frequencies: frequencies.collect(),
        asked: settled,
        names_rare_code,
    })
}

/// The codes of the question that none of the chunks has which the search may see. `terms` are those whose postings are at hand.
fn unseen_codes(
    parts: &[Part<'_>],
    gate: &Gate<'_>,
    (asked, terms): (&QueryTerms, &[u32]),
) -> io::Result<Vec<u32>> {
    let mut unseen = Vec::new();
    for code in asked.whole_codes() {
        let place = terms.partition_point(|term| *term < code);
        let mut is_seen = false;
        for part in parts {
            is_seen = is_seen || part.shows((code, place), gate)?;
        }
        if !is_seen {
            unseen.push(code);
        }
    }
    Ok(unseen)
}

impl Gate<'_> {
    fn allows(&self, document_id: DocumentId, source_id: SourceId) -> bool {
        self.filter.allows_source(source_id)
            && self.filter.allows_document(document_id)
            && (!self.needs_facets || {
                let facets = self.facets.get(self.filter.tenant_id(), document_id);
                self.filter.allows_facets(facets)
            })
    }

    /// Whether everything in these sources may be seen.
    fn allows_all_of(&self, sources: &[SourceId]) -> bool {
        let mut sources = sources.iter();
        !self.needs_facets
            && self.filter.allows_all_documents()
            && sources.all(|source_id| self.filter.allows_source(*source_id))
    }
}

impl Part<'_> {
    /// Scores the part's chunks and offers those that the filter lets through.
    fn collect(
        &self,
        number: usize,
        gate: &Gate<'_>,
        terms: &[u32],
        weights: &[[f32; 256]],
        best: &mut Best,
    ) -> io::Result<()> {
        let mut scores = vec![0.0_f32; self.chunks()];
        match self {
            Self::Fresh(tenant) => {
                for (term, weights) in terms.iter().zip(weights) {
                    for posting in tenant.postings(*term) {
                        scores[posting.position as usize] += weights[usize::from(posting.weight)];
                    }
                }
                best.offer(number, &scores, |position| {
                    let chunk = &tenant.chunks()[position as usize];
                    !chunk.is_deleted && gate.allows(chunk.document_id, chunk.source_id)
                });
            }
            Self::File {
                segment,
                block,
                postings,
            } => {
                let mut is_met = false;
                for (place, weights) in postings.iter().zip(weights) {
                    let Some((start, end)) = *place else { continue };
                    is_met = true;
                    let bytes = segment.bytes(start, end)?;
                    format::read_postings(&bytes, block.place.chunks, |position, weight| {
                        scores[position as usize] += weights[usize::from(weight)];
                    })?;
                }
                if !is_met {
                    return Ok(());
                }
                if gate.allows_all_of(&block.place.sources) {
                    best.offer(number, &scores, |position| !block.is_deleted(position));
                    return Ok(());
                }
                let documents = segment.documents(block)?;
                let documents_of = segment.documents_of(block)?;
                best.offer(number, &scores, |position| {
                    let document = documents.get(documents_of[position as usize] as usize);
                    !block.is_deleted(position)
                        && document
                            .is_some_and(|(document_id, source_id)| gate.allows(*document_id, *source_id))
                });
            }
        }
        Ok(())
    }

    /// Whether one of the chunks that the filter lets through has the `term`, which stands at this place of the question's.
    fn shows(&self, (term, place): (u32, usize), gate: &Gate<'_>) -> io::Result<bool> {
        match self {
            Self::Fresh(tenant) => Ok(tenant.postings(term).iter().any(|posting| {
                let chunk = &tenant.chunks()[posting.position as usize];
                !chunk.is_deleted && gate.allows(chunk.document_id, chunk.source_id)
            })),
            Self::File {
                segment,
                block,
                postings,
            } => {
                let Some((start, end)) = postings[place] else {
                    return Ok(false);
                };
                let bytes = segment.bytes(start, end)?;
                let mut having = Vec::new();
                format::read_postings(&bytes, block.place.chunks, |position, _| having.push(position))?;
                having.retain(|position| !block.is_deleted(*position));
                if having.is_empty() || gate.allows_all_of(&block.place.sources) {
                    return Ok(!having.is_empty());
                }
                let documents = segment.documents(block)?;
                let documents_of = segment.documents_of(block)?;
                Ok(having.into_iter().any(|position| {
                    let document = documents.get(documents_of[position as usize] as usize);
                    document.is_some_and(|(document_id, source_id)| gate.allows(*document_id, *source_id))
                }))
            }
        }
    }

    fn chunks(&self) -> usize {
        match self {
            Self::Fresh(tenant) => tenant.chunks().len(),
            Self::File { block, .. } => block.place.chunks as usize,
        }
    }

    fn chunks_at(&self, positions: &[u32]) -> io::Result<Vec<ChunkId>> {
        match self {
            Self::Fresh(tenant) => {
                let chunks = positions.iter().map(|at| &tenant.chunks()[*at as usize]);
                Ok(chunks.map(|chunk| chunk.chunk_id).collect())
            }
            Self::File { segment, block, .. } => segment.chunks_at(block, positions),
        }
    }
}

/// The highest scores so far. Keeps up to twice as many as asked for, so that most candidates cost one comparison.
struct Best {
    limit: usize,
    candidates: Vec<Candidate>,
    /// What a candidate has to exceed.
    threshold: f32,
}

impl Best {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            candidates: Vec::new(),
            threshold: 0.0,
        }
    }

    fn offer(&mut self, part: usize, scores: &[f32], mut is_allowed: impl FnMut(u32) -> bool) {
        for (position, score) in (0_u32..).zip(scores) {
            if *score > self.threshold && is_allowed(position) {
                self.candidates.push(Candidate {
                    score: *score,
                    part,
                    position,
                });
                if self.candidates.len() >= self.limit.saturating_mul(2) {
                    self.cut();
                }
            }
        }
    }

    fn cut(&mut self) {
        self.candidates.select_nth_unstable_by(self.limit - 1, order);
        self.candidates.truncate(self.limit);
        self.threshold = self.candidates[self.limit - 1].score;
    }

    fn into_sorted(mut self) -> Vec<Candidate> {
        self.candidates.sort_unstable_by(order);
        self.candidates.truncate(self.limit);
        self.candidates
    }
}

/// Best first, and the same every time.
fn order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.score
        .total_cmp(&a.score)
        .then_with(|| (a.part, a.position).cmp(&(b.part, b.position)))
}
