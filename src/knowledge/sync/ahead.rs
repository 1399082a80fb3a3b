//! What the items of a batch are told about themselves in a few statements rather than in a few for each: a statement costs
//! more on its way to the database than in it.

use std::collections::{HashMap, HashSet};

use sqlx::QueryBuilder;

use super::batch::ReadItem;
use super::driver::Outcome;
use super::items::{self, Owner, Place};
use crate::db::{ROWS_AT_ONCE, Write};
use crate::error::Result;
use crate::id::DocumentId;
use crate::knowledge::sources::exclusions;
use crate::on;

/// What was looked up for a batch, in the transaction that stores it. It holds until a document changes hands; from then
/// on each item asks for itself.
pub(super) struct Ahead {
    holds: bool,
    /// The document of each item, and its text.
    known: HashMap<String, (Option<DocumentId>, Option<String>)>,
    /// Texts that some other item may have the document of.
    contested: HashSet<String>,
    /// Texts that were deleted by hand.
    excluded: HashSet<String>,
    /// Documents that have the name of an item.
    named: HashMap<String, DocumentId>,
}

impl Ahead {
    pub(super) async fn look(write: &mut Write, place: Place, batch: &[ReadItem]) -> Result<Self> {
        let begun = batch.iter().filter(|read| read.is_begun());
        let keys: Vec<&str> = begun.map(|read| read.item.key.as_str()).collect();
        let (mut texts, mut contested, mut with_content) = (HashSet::new(), HashSet::new(), Vec::new());
        for read in batch {
            if let Outcome::Content(content) = &read.reading.outcome {
                with_content.push(read.item.key.as_str());
                if !texts.insert(content.text_hash.as_str()) {
                    contested.insert(content.text_hash.clone());
                }
            }
        }
        let texts: Vec<&str> = texts.into_iter().collect();
        contested.extend(list_owned_texts(write, place, &texts).await?);
        let known = list_known(write, place, &keys).await?;
        let excluded = exclusions::list_texts(write, place.tenant_id, place.source_id, &texts).await?;
        Ok(Self {
            holds: true,
            known: known
                .into_iter()
                .map(|(key, id, text)| (key, (id, text)))
                .collect(),
            contested,
            excluded: excluded.into_iter().collect(),
            named: list_named(write, place, &with_content)
                .await?
                .into_iter()
                .collect(),
        })
    }

    /// The document of an item and the text that it has, as of now.
    pub(super) async fn known_of(
        &self,
        write: &mut Write,
        place: Place,
        key: &str,
    ) -> Result<(Option<DocumentId>, Option<String>)> {
        if self.holds {
            return Ok(self.known.get(key).cloned().unwrap_or_default());
        }
        let known = list_known(write, place, &[key]).await?;
        Ok(known
            .into_iter()
            .next()
            .map(|(_, id, text)| (id, text))
            .unwrap_or_default())
    }

    /// Who has the document of this text, besides the item `key`.
    pub(super) async fn owner_of(
        &self,
        write: &mut Write,
        place: Place,
        key: &str,
        text_hash: &str,
    ) -> Result<Option<Owner>> {
        if self.holds && !self.contested.contains(text_hash) {
            return Ok(None);
        }
        items::find_owner(write, place, key, text_hash).await
    }

    /// The document that has the name of the item `key`.
    pub(super) async fn named(
        &self,
        write: &mut Write,
        place: Place,
        key: &str,
    ) -> Result<Option<DocumentId>> {
        if self.holds {
            return Ok(self.named.get(key).copied());
        }
        let named = list_named(write, place, &[key]).await?;
        Ok(named.into_iter().next().map(|(_, id)| id))
    }

    /// Whether these words are to stay away. Nothing that a batch does changes that.
    pub(super) fn is_excluded(&self, text_hash: &str) -> bool {
        self.excluded.contains(text_hash)
    }

    /// A document changed hands.
    pub(super) fn forget(&mut self) {
        self.holds = false;
    }

    /// A document got the name of its item.
    pub(super) fn is_renamed(&mut self, id: DocumentId) {
        self.named.retain(|_, named| *named != id);
    }
}

/// Those of these items that there are, each with its document and the text that it has.
async fn list_known(
    write: &mut Write,
    place: Place,
    keys: &[&str],
) -> Result<Vec<(String, Option<DocumentId>, Option<String>)>> {
    let mut known = Vec::with_capacity(keys.len());
    for group in keys.chunks(ROWS_AT_ONCE) {
        let found: Vec<(String, Option<DocumentId>, Option<String>)> = on!(write, c => {
            let mut query = QueryBuilder::new("select item_key, document_id, text_hash from source_item where coalesce(tenant_id, tenant_id) = ");
            query.push_bind(place.tenant_id).push(" and source_id = ").push_bind(place.source_id).push(" and item_key in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|key| {
                list.push_bind(*key);
            });
            query.push(")");
            query.build_query_as().fetch_all(c).await
        })?;
        known.extend(found);
    }
    Ok(known)
}

/// Those of these texts whose document some item has.
async fn list_owned_texts(write: &mut Write, place: Place, texts: &[&str]) -> Result<Vec<String>> {
    let mut owned = Vec::new();
    for group in texts.chunks(ROWS_AT_ONCE) {
        let found: Vec<String> = on!(write, c => {
            let mut query = QueryBuilder::new("select distinct text_hash from source_item where document_id is not null and tenant_id = ");
            query.push_bind(place.tenant_id).push(" and source_id = ").push_bind(place.source_id).push(" and text_hash in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|text| {
                list.push_bind(*text);
            });
            query.push(")");
            query.build_query_scalar().fetch_all(c).await
        })?;
        owned.extend(found);
    }
    Ok(owned)
}

/// Documents of the source that have these names.
async fn list_named(write: &mut Write, place: Place, names: &[&str]) -> Result<Vec<(String, DocumentId)>> {
    let mut named = Vec::new();
    for group in names.chunks(ROWS_AT_ONCE) {
        let found: Vec<(String, DocumentId)> = on!(write, c => {
            let mut query = QueryBuilder::new("select external_id, id from document where coalesce(tenant_id, tenant_id) = ");
            query.push_bind(place.tenant_id).push(" and source_id = ").push_bind(place.source_id).push(" and external_id in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|name| {
                list.push_bind(*name);
            });
            query.push(")");
            query.build_query_as().fetch_all(c).await
        })?;
        named.extend(found);
    }
    Ok(named)
}
