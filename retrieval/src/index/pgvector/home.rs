//! What the tables know of a tenant as a whole: where its points lie, how many there are, and its terms.

use std::collections::HashMap;

use pgvector::SparseVector;
use sqlx::FromRow;

use super::schema::Collection;
use super::stored::terms_in;
use super::tenant::Tenant;
use crate::index::IndexError;

/// Where a tenant's points lie.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Home {
    /// Names its own table.
    pub(super) number: i64,
    /// All its points.
    pub(super) chunks: i64,
    /// Those in the table that it shares with others.
    pub(super) fresh: i64,
    /// Whether it has a table of its own.
    pub(super) owns: bool,
}

const COLUMNS: &str = "number, chunks, fresh, owns";

impl Home {
    /// The tenant's, if it has points.
    pub(super) async fn find(
        tenant: &mut Tenant<'_>,
        collection: &Collection,
    ) -> Result<Option<Self>, IndexError> {
        let tenants = collection.tenants();
        let statement = tenant.statement(format!("select {COLUMNS} from {tenants} where tenant_id = $1"));
        Ok(tenant.fetch(statement).await?.pop())
    }

    /// As [`Home::find`], and nobody else changes this tenant's points until the transaction ends.
    pub(super) async fn lock(
        tenant: &mut Tenant<'_>,
        collection: &Collection,
    ) -> Result<Option<Self>, IndexError> {
        let tenants = collection.tenants();
        let statement = tenant.statement(format!(
            "select {COLUMNS} from {tenants} where tenant_id = $1 for update"
        ));
        Ok(tenant.fetch(statement).await?.pop())
    }

    /// As [`Home::lock`], for a tenant that may be new.
    pub(super) async fn make_and_lock(
        tenant: &mut Tenant<'_>,
        collection: &Collection,
    ) -> Result<Self, IndexError> {
        let tenants = collection.tenants();
        let statement = tenant.statement(format!(
            "insert into {tenants} as home (tenant_id) values ($1)
             on conflict (tenant_id) do update set chunks = home.chunks
             returning {COLUMNS}"
        ));
        let mut made = tenant.fetch(statement).await?;
        Ok(made.pop().expect("what was inserted or updated is returned"))
    }

    /// Writes the numbers down.
    pub(super) async fn save(
        &self,
        tenant: &mut Tenant<'_>,
        collection: &Collection,
    ) -> Result<(), IndexError> {
        let tenants = collection.tenants();
        let mut statement = tenant.statement(format!("update {tenants}"));
        let chunks = statement.bind(self.chunks);
        let fresh = statement.bind(self.fresh);
        let owns = statement.bind(self.owns);
        statement.push(&format!(
            " set chunks = {chunks}, fresh = {fresh}, owns = {owns} where tenant_id = $1"
        ));
        tenant.execute(statement).await.map(drop)
    }

    /// The tables that hold its points: the shared one and its own.
    pub(super) fn tables(&self, collection: &Collection) -> Vec<String> {
        let own = self.owns.then(|| collection.own(self.number));
        [collection.points()].into_iter().chain(own).collect()
    }
}

/// What a transaction changes of a tenant's terms.
#[derive(Default)]
pub(super) struct TermChanges {
    /// By how many chunks more or less, and the greatest weight in an added one.
    changes: HashMap<i32, (i64, f32)>,
}

impl TermChanges {
    pub(super) fn add(&mut self, words: &SparseVector) {
        for (term, weight) in terms_in(words) {
            let change = self.changes.entry(term).or_default();
            change.0 += 1;
            change.1 = change.1.max(weight);
        }
    }

    pub(super) fn remove(&mut self, words: &SparseVector) {
        for (term, _) in terms_in(words) {
            self.changes.entry(term).or_default().0 -= 1;
        }
    }

    /// Terms that no chunk has any more are forgotten; the greatest weight stays when its chunk goes, as it is a bound only.
    pub(super) async fn save(
        self,
        tenant: &mut Tenant<'_>,
        collection: &Collection,
    ) -> Result<(), IndexError> {
        let table = collection.terms();
        let mut terms: Vec<i32> = self.changes.keys().copied().collect();
        terms.sort_unstable();
        let fewer: Vec<i32> = self
            .changes
            .iter()
            .filter(|(_, change)| change.0 < 0)
            .map(|(term, _)| *term)
            .collect();
        let chunks: Vec<i64> = terms.iter().map(|term| self.changes[term].0).collect();
        let peaks: Vec<f32> = terms.iter().map(|term| self.changes[term].1).collect();
        let mut statement = tenant.statement(format!(
            "insert into {table} as known (tenant_id, term, chunks, peak) select $1, * from unnest("
        ));
        let (terms, chunks, peaks) = (
            statement.bind(terms),
            statement.bind(chunks),
            statement.bind(peaks),
        );
        statement.push(&format!(
            "{terms}::integer[], {chunks}::bigint[], {peaks}::real[])
             on conflict (tenant_id, term) do update
                set chunks = known.chunks + excluded.chunks, peak = greatest(known.peak, excluded.peak)"
        ));
        tenant.execute(statement).await?;
        if !fewer.is_empty() {
            let mut statement = tenant.statement(format!(
                "delete from {table} where tenant_id = $1 and chunks <= 0 and term = any("
            ));
            let fewer = statement.bind(fewer);
            statement.push(&format!("{fewer})"));
            tenant.execute(statement).await?;
        }
        Ok(())
    }
}
