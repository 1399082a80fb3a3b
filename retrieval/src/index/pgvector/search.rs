//! Searches. The shared table is read point by point, which is exact. A table of the tenant's own is asked by its indexes:
//! the graph for what is near, the inverted index over its `tsvector` for chunks that have one of the question's rarer words.

use std::collections::{BTreeMap, HashMap, HashSet};

use pgvector::SparseVector;
use uuid::Uuid;

use super::Inner;
use super::home::Home;
use super::schema::LEXEMES_OF_WORDS;
use super::stored::{bind_vector, check_vector, normalise, sparse, storable, term};
use super::tenant::{Statement, Tenant, TenantTransaction};
use crate::analysis::{self, QueryTerms, inverse_document_frequency};
use crate::index::{Audience, Candidate, Candidates, Filter, IndexError, SearchQuery};
use crate::{ChunkId, TenantId};

/// Chunks that are scored by words at least, as a multiple of those wanted, before common words are given up.
const SCORED_FOR_EACH: i64 = 4;

/// How much a sum of weights in single precision may lie above what it is.
const ROUNDING: f32 = 1.0001;

/// A question after analysis.
struct Asked {
    /// Of unit length.
    vector: Option<Vec<f32>>,
    /// The words that the tenant's chunks have, rarest first.
    words: Vec<Word>,
    filter: Filter,
    limit: usize,
}

/// A word of the question.
struct Word {
    term: i32,
    /// Chunks that have it.
    chunks: i64,
    /// Inverse document frequency.
    idf: f32,
    /// The most that it can add to a chunk's score.
    most: f32,
}

/// What is known of a question before its points are looked at.
struct LookedUp {
    home: Home,
    /// What to look for, which follows from what the tenant's chunks have.
    terms: QueryTerms,
    words: Vec<Word>,
    names_rare_code: bool,
}

/// Chunk, cosine, BM25 score or 0.
type Row = (Uuid, Option<f64>, f64);

pub(super) async fn search(
    inner: &Inner,
    tenant_id: TenantId,
    query: SearchQuery,
) -> Result<Candidates, IndexError> {
    if let Some(vector) = &query.vector {
        check_vector(&inner.collection.layout, vector)?;
    }
    if query.filter.lets_nothing() || query.limit == 0 {
        return Ok(Candidates::default());
    }
    match search_once(inner, tenant_id, query.clone()).await {
        // The tenant was deleted, and its table with it, between two statements.
        Err(IndexError::Damaged { .. }) => search_once(inner, tenant_id, query).await,
        done => done,
    }
}

async fn search_once(
    inner: &Inner,
    tenant_id: TenantId,
    query: SearchQuery,
) -> Result<Candidates, IndexError> {
    let mut transaction = TenantTransaction::read(&inner.pool, tenant_id).await?;
    let mut tenant = transaction.tenant();
    let terms = analysis::query_terms(&query.text, &query.languages);
    let Some(looked_up) = look_up(inner, &mut tenant, &terms, &query.filter).await? else {
        return Ok(Candidates::default());
    };
    let LookedUp {
        home,
        terms,
        words,
        names_rare_code,
    } = looked_up;
    let keyword_ceiling = (!terms.hashes.is_empty()).then(|| ceiling(&terms, &home, &words));
    let asked = Asked {
        vector: query.vector.map(normalise),
        words,
        filter: query.filter,
        limit: query.limit,
    };
    let mut search = Search {
        inner,
        tenant,
        asked: &asked,
    };
    let mut rows = Vec::new();
    if home.fresh > 0 {
        rows.extend(search.shared().await?);
    }
    if home.owns {
        let own = inner.collection.own(home.number);
        rows.extend(search.own_nearest(&own, home.chunks - home.fresh).await?);
        rows.extend(search.own_by_words(&own).await?);
    }
    Ok(Candidates {
        hits: best(rows, asked.limit),
        keyword_ceiling,
        names_rare_code,
    })
}

/// As every index reckons it, by the table of terms.
fn ceiling(terms: &QueryTerms, home: &Home, words: &[Word]) -> f32 {
    let frequency_of: HashMap<i32, f32> = words.iter().map(|word| (word.term, word.idf)).collect();
    let unknown = inverse_document_frequency(home.chunks.unsigned_abs(), 1);
    let frequencies = terms.hashes.iter().map(|hash| {
        let known = frequency_of.get(&term(*hash));
        known.copied().unwrap_or(unknown)
    });
    terms.ceiling(&frequencies.collect::<Vec<f32>>())
}

/// Where the tenant's points lie, and what the table of terms tells of these.
async fn look_up(
    inner: &Inner,
    tenant: &mut Tenant<'_>,
    terms: &QueryTerms,
    filter: &Filter,
) -> Result<Option<LookedUp>, IndexError> {
    type Known = (i64, i64, i64, bool, Option<i32>, Option<i64>, Option<f32>);
    let collection = &inner.collection;
    let mut statement = tenant.statement("");
    let counted: Vec<i32> = terms.with_all_parts().into_iter().map(term).collect();
    let counted = statement.bind(counted);
    statement.push(&format!(
        "select home.number, home.chunks, home.fresh, home.owns, known.term, known.chunks, known.peak
           from {} as home
           left join {} as known on known.tenant_id = $1 and known.term = any({counted})
          where home.tenant_id = $1",
        collection.tenants(),
        collection.terms(),
    ));
    let rows: Vec<Known> = tenant.fetch(statement).await?;
    let Some((number, chunks, fresh, owns, ..)) = rows.first().copied() else {
        return Ok(None);
    };
    let home = Home {
        number,
        chunks,
        fresh,
        owns,
    };
    let known = rows.into_iter().filter_map(|(_, _, _, _, term, having, peak)| {
        let having = having?;
        let idf = inverse_document_frequency(chunks.unsigned_abs(), having.unsigned_abs());
        Some(Word {
            term: term?,
            chunks: having,
            idf,
            most: idf * peak? * ROUNDING,
        })
    });
    let mut words: Vec<Word> = known.collect();
    words.sort_by_key(|word| (word.chunks, word.term));
    let mut having: HashMap<i32, u64> = words
        .iter()
        .map(|word| (word.term, word.chunks.unsigned_abs()))
        .collect();
    let codes = terms.whole_codes().into_iter().map(term);
    let codes: Vec<i32> = codes.filter(|code| having.contains_key(code)).collect();
    let seen = seen_codes(inner, tenant, &home, &codes, filter).await?;
    having.retain(|word, _| !codes.contains(word) || seen.contains(word));
    let having_of = |hash| having.get(&term(hash)).copied().unwrap_or(0);
    let settled = terms.settle(having_of);
    words.retain(|word| settled.hashes.iter().any(|hash| term(*hash) == word.term));
    Ok(Some(LookedUp {
        home,
        names_rare_code: terms.name_rare_code(having_of),
        terms: settled,
        words,
    }))
}

/// Those of `codes` that a chunk has which the filter lets through.
async fn seen_codes(
    inner: &Inner,
    tenant: &mut Tenant<'_>,
    home: &Home,
    codes: &[i32],
    narrowed: &Filter,
) -> Result<HashSet<i32>, IndexError> {
    let mut statement = tenant.statement("");
    let filter = filter(&mut statement, narrowed);
    let mut looks = Vec::new();
    for code in codes {
        if home.fresh > 0 {
            let points = inner.collection.points();
            let word = statement.bind(sparse(&BTreeMap::from([(*code, 1.0)])));
            looks.push(format!(
                "select {code}
                  where exists (select 1 from {points} where tenant_id = $1 and (words <#> {word}) < 0 {filter})"
            ));
        }
        if home.owns {
            let own = inner.collection.own(home.number);
            let lexeme = statement.bind(code.to_string());
            // Of a plain subquery the planner wants the first row alone, for which it reads the table rather than the index.
            looks.push(format!(
                "select {code}
                  where exists (
                            with named as materialized (
                                select source_id, document_id, language, tags, published, groups
                                  from {own}
                                 where tenant_id = $1 and {LEXEMES_OF_WORDS} @@ {lexeme}::tsquery
                            )
                            select 1 from named where true {filter}
                        )"
            ));
        }
    }
    if looks.is_empty() {
        return Ok(HashSet::new());
    }
    statement.push(&looks.join(" union all "));
    let seen: Vec<(i32,)> = tenant.fetch(statement).await?;
    Ok(seen.into_iter().map(|(code,)| code).collect())
}

struct Search<'s> {
    inner: &'s Inner,
    tenant: Tenant<'s>,
    asked: &'s Asked,
}

impl Search<'_> {
    /// Compares each of the tenant's points in the shared table.
    async fn shared(&mut self) -> Result<Vec<Row>, IndexError> {
        if self.asked.vector.is_none() && self.asked.words.is_empty() {
            return Ok(Vec::new());
        }
        let mut statement = self.tenant.statement("");
        let similarity = self.similarity(&mut statement);
        let score = self.score(&mut statement);
        let filter = filter(&mut statement, &self.asked.filter);
        let limit = self.limit(&mut statement);
        statement.push(&format!(
            "with scored as materialized (
                 select chunk_id, {similarity} as similarity, {score} as score
                   from {} where tenant_id = $1 {filter}
             )
             (select * from scored where similarity is not null order by similarity desc, chunk_id limit {limit})
             union all
             (select * from scored where score > 0 order by score desc, chunk_id limit {limit})",
            self.inner.collection.points(),
        ));
        self.tenant.fetch(statement).await
    }

    /// The nearest of the `stored` points in the tenant's own table.
    async fn own_nearest(&mut self, own: &str, stored: i64) -> Result<Vec<Row>, IndexError> {
        let Some(vector) = &self.asked.vector else {
            return Ok(Vec::new());
        };
        // Of a few documents all points are compared. The graph would be walked in vain for long.
        let is_narrow = self.asked.filter.documents.is_some();
        if !is_narrow {
            let rows = self.own_ordered(own, vector, "").await?;
            let wanted = self.asked.limit.min(usize::try_from(stored).unwrap_or(0));
            if rows.len() >= wanted {
                return Ok(rows);
            }
            // The walk ended before so many passed the filter: then few pass at all.
        }
        self.own_ordered(own, vector, "+ 0").await
    }

    /// `exactly`: what makes the order one that the graph cannot give.
    async fn own_ordered(
        &mut self,
        own: &str,
        vector: &[f32],
        exactly: &str,
    ) -> Result<Vec<Row>, IndexError> {
        let mut statement = self.tenant.statement("");
        let vector = bind_vector(&mut statement, &self.inner.collection.layout, vector);
        let filter = filter(&mut statement, &self.asked.filter);
        let limit = self.limit(&mut statement);
        statement.push(&format!(
            "select chunk_id, -(vector <#> {vector}), 0::float8
               from {own}
              where tenant_id = $1 {filter}
              order by (vector <#> {vector}) {exactly}
              limit {limit}"
        ));
        let mut rows: Vec<Row> = self.tenant.fetch(statement).await?;
        rows.retain(|(_, similarity, _)| similarity.is_some());
        Ok(rows)
    }

    /// The best by words in the tenant's own table: those of all that have one of the rarer words, as many words as it takes
    /// to be sure that no chunk without one is better (Turtle and Flood, "Query evaluation: strategies and optimizations",
    /// 1995).
    async fn own_by_words(&mut self, own: &str) -> Result<Vec<Row>, IndexError> {
        let words = &self.asked.words;
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let few = enough_words(words, self.asked.limit);
        let rows = self.own_having(own, &words[..few]).await?;
        let reached = match rows.get(self.asked.limit - 1) {
            Some((_, _, score)) => *score as f32,
            None => 0.0,
        };
        let needed = needed_words(words, reached);
        if needed <= few {
            return Ok(rows);
        }
        self.own_having(own, &words[..needed]).await
    }

    /// The best of the chunks that have one of `words`, scored by all words, best first.
    async fn own_having(&mut self, own: &str, words: &[Word]) -> Result<Vec<Row>, IndexError> {
        let mut statement = self.tenant.statement("");
        let similarity = self.similarity(&mut statement);
        let score = self.score(&mut statement);
        let any = statement.bind(any_of(words));
        let filter = filter(&mut statement, &self.asked.filter);
        let limit = self.limit(&mut statement);
        statement.push(&format!(
            "select chunk_id, {similarity}, {score} as score
               from {own}
              where tenant_id = $1 and {LEXEMES_OF_WORDS} @@ {any}::tsquery {filter}
              order by score desc, chunk_id
              limit {limit}"
        ));
        self.tenant.fetch(statement).await
    }

    fn limit(&self, statement: &mut Statement) -> String {
        statement.bind(i64::try_from(self.asked.limit).unwrap_or(i64::MAX))
    }

    fn similarity(&self, statement: &mut Statement) -> String {
        match &self.asked.vector {
            Some(vector) => {
                let vector = bind_vector(statement, &self.inner.collection.layout, vector);
                format!("-(vector <#> {vector})")
            }
            None => "null::float8".to_owned(),
        }
    }

    fn score(&self, statement: &mut Statement) -> String {
        if self.asked.words.is_empty() {
            return "0::float8".to_owned();
        }
        let weights: BTreeMap<i32, f32> = self
            .asked
            .words
            .iter()
            .map(|word| (word.term, word.idf))
            .collect();
        let weights: SparseVector = sparse(&weights);
        format!("-(words <#> {})", statement.bind(weights))
    }
}

/// The `tsquery` of chunks that have one of these words.
fn any_of(words: &[Word]) -> String {
    let terms: Vec<String> = words.iter().map(|word| word.term.to_string()).collect();
    terms.join(" | ")
}

/// How many of the words, rarest first, give enough chunks to begin with.
fn enough_words(words: &[Word], limit: usize) -> usize {
    let enough = i64::try_from(limit)
        .unwrap_or(i64::MAX)
        .saturating_mul(SCORED_FOR_EACH);
    let mut chunks = 0;
    let fewer = words.iter().take_while(|word| {
        let has_enough = chunks >= enough;
        chunks += word.chunks;
        !has_enough
    });
    fewer.count()
}

/// How many of the words, rarest first, a chunk must have one of to score more than `reached`.
fn needed_words(words: &[Word], reached: f32) -> usize {
    let mut rest = 0.0;
    let common = words.iter().rev().take_while(|word| {
        rest += word.most;
        rest < reached
    });
    words.len() - common.count()
}

/// The condition that `filter` sets, to be put behind others.
fn filter(statement: &mut Statement, filter: &Filter) -> String {
    let texts = |texts: &[String]| texts.iter().map(|text| storable(text)).collect::<Vec<String>>();
    let sources: Vec<Uuid> = filter.sources.iter().map(|id| id.0).collect();
    let mut conditions = format!("and source_id = any({})", statement.bind(sources));
    if let Some(documents) = &filter.documents {
        let documents: Vec<Uuid> = documents.iter().map(|id| id.0).collect();
        conditions += &format!(" and document_id = any({})", statement.bind(documents));
    }
    if let Some(languages) = &filter.languages {
        conditions += &format!(" and language = any({})", statement.bind(texts(languages)));
    }
    if let Some(tags) = &filter.tags {
        conditions += &format!(" and tags && {}", statement.bind(texts(tags)));
    }
    if let Some(since) = filter.since {
        conditions += &format!(" and published >= {}", statement.bind(since));
    }
    if let Some(until) = filter.until {
        conditions += &format!(" and published < {}", statement.bind(until));
    }
    match &filter.audience {
        Audience::Everything => {}
        Audience::Groups(groups) if groups.is_empty() => conditions += " and groups = '{}'",
        Audience::Groups(groups) => {
            let groups = statement.bind(texts(groups));
            conditions += &format!(" and (groups = '{{}}' or groups && {groups})");
        }
    }
    conditions
}

/// The `limit` nearest and the `limit` best by words, each once.
fn best(rows: Vec<Row>, limit: usize) -> Vec<Candidate> {
    let mut found: HashMap<ChunkId, Candidate> = HashMap::with_capacity(rows.len());
    for (chunk_id, similarity, score) in rows {
        let candidate = found.entry(ChunkId(chunk_id)).or_insert(Candidate {
            chunk_id: ChunkId(chunk_id),
            similarity: None,
            keyword_score: None,
        });
        candidate.similarity = candidate
            .similarity
            .or(similarity.map(|similarity| similarity as f32));
        if score > 0.0 {
            candidate.keyword_score = Some(score as f32);
        }
    }
    let near = first_by(&found, limit, |candidate| candidate.similarity);
    let worded = first_by(&found, limit, |candidate| candidate.keyword_score);
    let hits = found.into_values().filter_map(|mut candidate| {
        let is_near = near.is_some_and(|last| is_before(key(&candidate, candidate.similarity), last));
        let is_worded = worded.is_some_and(|last| is_before(key(&candidate, candidate.keyword_score), last));
        if !is_worded {
            candidate.keyword_score = None;
        }
        (is_near || is_worded).then_some(candidate)
    });
    hits.collect()
}

/// Score and id of the last of the `limit` candidates that come first by `score`.
fn first_by(
    found: &HashMap<ChunkId, Candidate>,
    limit: usize,
    score: impl Fn(&Candidate) -> Option<f32>,
) -> Option<(f32, ChunkId)> {
    let mut keys: Vec<(f32, ChunkId)> = found
        .values()
        .filter_map(|candidate| key(candidate, score(candidate)))
        .collect();
    keys.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    keys.truncate(limit);
    keys.pop()
}

fn key(candidate: &Candidate, score: Option<f32>) -> Option<(f32, ChunkId)> {
    Some((score?, candidate.chunk_id))
}

/// Whether a candidate comes before `last`, or is it.
fn is_before(key: Option<(f32, ChunkId)>, last: (f32, ChunkId)) -> bool {
    key.is_some_and(|key| key.0 > last.0 || (key.0 == last.0 && key.1 <= last.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(chunks: i64, most: f32) -> Word {
        Word {
            term: 1,
            chunks,
            idf: most,
            most,
        }
    }

    #[test]
    fn rare_words_come_first_and_common_ones_only_where_they_could_decide() {
        let words = [word(10, 5.0), word(300, 3.0), word(9_000, 1.0), word(40_000, 0.5)];

        assert_eq!(enough_words(&words, 2), 1);
        assert_eq!(enough_words(&words, 50), 2);
        assert_eq!(enough_words(&words, 100_000), 4);
        assert_eq!(needed_words(&words, 1.6), 2, "the common two add at most 1.5");
        assert_eq!(needed_words(&words, 0.6), 3);
        assert_eq!(needed_words(&words, 0.0), 4, "nothing was reached: all count");
    }

    #[test]
    fn each_side_keeps_its_best_and_a_score_beyond_them_is_not_told() {
        let id = Uuid::from_u128;
        let rows = vec![
            (id(1), Some(0.9), 0.0),
            (id(2), Some(0.5), 3.0),
            (id(3), Some(0.4), 2.0),
            (id(2), Some(0.5), 3.0),
        ];

        let mut hits = best(rows, 1);

        hits.sort_by_key(|hit| hit.chunk_id);
        let told: Vec<_> = hits
            .iter()
            .map(|hit| (hit.chunk_id.0, hit.similarity, hit.keyword_score))
            .collect();
        assert_eq!(told, [(id(1), Some(0.9), None), (id(2), Some(0.5), Some(3.0))]);
    }

    #[test]
    fn equal_scores_are_kept_in_the_order_of_their_ids() {
        let rows = (1..5)
            .rev()
            .map(|n| (Uuid::from_u128(n), Some(0.5), 0.0))
            .collect();

        let mut kept: Vec<u128> = best(rows, 2).iter().map(|hit| hit.chunk_id.0.as_u128()).collect();

        kept.sort_unstable();
        assert_eq!(kept, [1, 2]);
    }
}
