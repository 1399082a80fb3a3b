//! The sparse side of a shard: dot products over term lists, as the server computes them. By hand because the engine in
//! this crate's version cannot count term statistics by a filter, which servers do since 1.19.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

#[derive(Default)]
pub(super) struct Words {
    weights_of: HashMap<Uuid, Vec<(u32, f32)>>,
    postings: HashMap<u32, HashMap<Uuid, f32>>,
}

impl Words {
    pub(super) fn put(&mut self, id: Uuid, weights: Vec<(u32, f32)>) {
        self.remove(id);
        for (term, weight) in &weights {
            self.postings.entry(*term).or_default().insert(id, *weight);
        }
        self.weights_of.insert(id, weights);
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        for (term, _) in self.weights_of.remove(&id).unwrap_or_default() {
            if let Some(posting) = self.postings.get_mut(&term) {
                posting.remove(&id);
            }
        }
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&Vec<(u32, f32)>> {
        self.weights_of.get(&id)
    }

    /// The best of `allowed`, best first. Terms are weighed by how rare they are in `corpus`, `None` being everything.
    pub(super) fn search(
        &self,
        query: &[(u32, f32)],
        allowed: &HashSet<Uuid>,
        corpus: Option<&HashSet<Uuid>>,
        limit: usize,
    ) -> Vec<(Uuid, f32)> {
        let is_counted = |id: &Uuid| corpus.is_none_or(|corpus| corpus.contains(id));
        let points = corpus.map_or(self.weights_of.len(), HashSet::len) as f32;
        let mut score_of: BTreeMap<Uuid, f32> = BTreeMap::new();
        for (term, weight) in query {
            let Some(posting) = self.postings.get(term) else {
                continue;
            };
            let having = posting.keys().filter(|id| is_counted(id)).count() as f32;
            let rarity = ((points - having + 0.5) / (having + 0.5) + 1.0).ln();
            for (id, stored) in posting.iter().filter(|(id, _)| allowed.contains(id)) {
                *score_of.entry(*id).or_default() += weight * rarity * stored;
            }
        }
        let mut found: Vec<(Uuid, f32)> = score_of.into_iter().collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        found.truncate(limit);
        found
    }
}
