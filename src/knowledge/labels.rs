//! Tags and access groups: what owners say of documents, and whom they let read them.
//!
//! A document's own go before those of its source. The index is told of every change, without embedding anything again: with the
//! change's own transaction where it lies in the database of the rows, otherwise by a job of that; until then, and whatever the
//! index says, rows decide who reads what.

mod telling;
mod weighing;

use retrieval::index::Audience;
use serde_json::json;
use sqlx::types::Json;

pub use self::telling::TellIndex;
pub(super) use self::telling::{
    FacetsRow, Stored, date_of, facets_columns, list_being_told, primary_language, settle, tell, tell_again,
    tell_anew, tell_if_changed, tell_later, tell_of_source,
};
pub use self::weighing::WeighAnew;
pub(super) use self::weighing::{languages_of, list_weighed_otherwise, weigh_now};
use super::{Document, store};
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::http::access::{Actor, Reach};
use crate::id::{DocumentId, TenantId};
use crate::on;
use crate::tenancy;
use crate::tenancy::audit::{self, Change, Origin};
use crate::tenancy::role::Permission;

/// Tags, or groups, of one document, source or visitor.
const MAX_NAMES: usize = 50;

/// Longest name of a tag or group, in characters.
const MAX_NAME_CHARS: usize = 64;

/// Longest tag of a language in characters.
const MAX_LANGUAGE_CHARS: usize = 35;

/// What is said of a document or of all documents of a source. `None`: nothing of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    pub tags: Option<Vec<String>>,
    /// Who has one of them may read it; an empty list opens it to everyone.
    pub access_groups: Option<Vec<String>>,
}

/// What changes of [`Labels`]; what is left out stays.
#[derive(Debug, Default)]
pub(super) struct LabelsChange {
    pub tags: Option<Option<Vec<String>>>,
    pub access_groups: Option<Option<Vec<String>>>,
}

impl Labels {
    /// Checked: names without spaces around them, in order, each once.
    pub(super) fn checked(self) -> Result<Self> {
        Ok(Self {
            tags: self.tags.map(|names| check_names("tags", names)).transpose()?,
            access_groups: self
                .access_groups
                .map(|names| check_names("access_groups", names))
                .transpose()?,
        })
    }

    /// As queries give them: names separated by commas.
    pub(super) fn listed(tags: Option<&str>, access_groups: Option<&str>) -> Result<Self> {
        let given = Self {
            tags: tags.map(split_names),
            access_groups: access_groups.map(split_names),
        };
        given.checked()
    }

    /// Takes over what `given` says.
    pub(super) fn put(&mut self, given: Self) {
        self.tags = given.tags.or(self.tags.take());
        self.access_groups = given.access_groups.or(self.access_groups.take());
    }

    /// Whether `known` says all that this says.
    pub(super) fn adds_nothing_to(&self, known: &Self) -> bool {
        let mut told = known.clone();
        told.put(self.clone());
        told == *known
    }

    pub(super) fn change(&mut self, change: LabelsChange) -> Result<()> {
        let given = Self {
            tags: change.tags.clone().flatten(),
            access_groups: change.access_groups.clone().flatten(),
        }
        .checked()?;
        if change.tags.is_some() {
            self.tags = given.tags;
        }
        if change.access_groups.is_some() {
            self.access_groups = given.access_groups;
        }
        Ok(())
    }
}

/// Nothing in the list is an empty list.
fn split_names(list: &str) -> Vec<String> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// Whether it is a tag of a language (BCP 47), such as `de` or `pt-BR`.
pub(super) fn is_language_tag(tag: &str) -> bool {
    let mut parts = tag.split(['-', '_']);
    let is_language =
        |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_further =
        |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (2..=MAX_LANGUAGE_CHARS).contains(&tag.len())
        && parts.next().is_some_and(is_language)
        && parts.all(is_further)
}

/// Names of tags or groups, [`tenancy::composed`], in order, each once.
pub fn check_names(field: &str, names: Vec<String>) -> Result<Vec<String>> {
    let mut names: Vec<String> = names.iter().map(|name| tenancy::composed(name)).collect();
    names.sort_unstable();
    names.dedup();
    let is_name = |name: &String| {
        (1..=MAX_NAME_CHARS).contains(&name.chars().count())
            && !name
                .chars()
                .any(|character| character.is_control() || character == ',')
    };
    if names.len() > MAX_NAMES || !names.iter().all(is_name) {
        return Err(Error::invalid(
            "invalid_names",
            field,
            format!("give at most {MAX_NAMES} names of 1 to {MAX_NAME_CHARS} characters, without commas"),
        ));
    }
    Ok(names)
}

/// As whom a turn is asked: with the groups that a trusted caller names or that its token carries, otherwise as somebody
/// without any.
pub fn visitor(actor: &Actor, groups: Option<Vec<String>>) -> Result<Audience> {
    let groups = match groups {
        Some(groups) => named_groups(actor, groups)?,
        None => actor.own_groups().to_vec(),
    };
    Ok(Audience::Groups(groups))
}

/// As whom is searched: who may read all documents finds all of them, unless groups are to be tried.
pub(super) fn searcher(actor: &Actor, groups: Option<Vec<String>>) -> Result<Audience> {
    match groups {
        None if actor.allows(Permission::KnowledgeRead) => Ok(Audience::Everything),
        groups => visitor(actor, groups),
    }
}

fn named_groups(actor: &Actor, groups: Vec<String>) -> Result<Vec<String>> {
    if !actor.may_name_groups() {
        return Err(Error::Forbidden {
            code: "groups_not_allowed",
            message:
                "this key must not say which access groups a visitor has: leave groups out, or use a key with the scope chat:groups that no browser sees"
                    .into(),
        });
    }
    check_names("groups", groups)
}

/// Changes a document's own tags and groups.
pub(super) async fn change_document(
    app: &App,
    reach: Reach,
    id: DocumentId,
    change: LabelsChange,
    actor: &Actor,
    origin: &Origin,
) -> Result<Document> {
    let tenant_id = reach.tenant_id;
    let mut write = app.db.write(tenant_id).await?;
    hold(&mut write, tenant_id, id).await?;
    let mut document = store::find(&mut write, reach, id)
        .await?
        .ok_or(Error::NotFound("document"))?;
    let before = document.labels.clone();
    document.labels.change(change)?;
    if document.labels == before {
        return Ok(document);
    }
    let (now, labels) = (app.clock.now(), document.labels.clone());
    document.updated_at = now;
    on!(write, c => sqlx::query(
        "update document
            set tags = $3, access_groups = $4, facets_told = null, updated_at = $5
          where tenant_id = $1
            and id = $2",
    ).bind(tenant_id).bind(id).bind(labels.tags.as_ref().map(Json)).bind(labels.access_groups.as_ref().map(Json)).bind(now)
     .execute(c).await.map(drop))?;
    tell(app, &mut write, tenant_id, &[id]).await?;
    let change = Change {
        action: "document.update",
        object_kind: "document",
        object_id: id.to_string(),
        before: Some(describe(&before)),
        after: Some(describe(&labels)),
    };
    audit::record(&mut write, tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(document)
}

fn describe(labels: &Labels) -> serde_json::Value {
    json!({ "tags": labels.tags, "access_groups": labels.access_groups })
}

/// Nobody else changes the document until the transaction ends. SQLite has one writer anyway.
async fn hold(write: &mut Write, tenant_id: TenantId, id: DocumentId) -> Result<()> {
    if write.is_postgres() {
        on!(write, c => sqlx::query("select id from document where tenant_id = $1 and id = $2 for no key update")
            .bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ApiKeyId;
    use crate::tenancy::role::{KeyScope, Role};

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn key(scopes: &[KeyScope]) -> Actor {
        Actor::ApiKey {
            id: ApiKeyId::new(),
            scopes: scopes.to_vec(),
        }
    }

    #[test]
    fn names_are_put_in_order_and_odd_ones_are_refused() {
        let checked = check_names(
            "tags",
            names(&[" staff ", "sales", "staff", "Bu\u{308}ro", "B\u{fc}ro"]),
        )
        .expect("names");
        assert_eq!(checked, names(&["B\u{fc}ro", "sales", "staff"]));

        let long = "x".repeat(65);
        for odd in ["", "  ", "a,b", "a\nb", long.as_str()] {
            assert!(check_names("tags", names(&[odd])).is_err(), "{odd:?}");
        }
        let many = (0..=MAX_NAMES).map(|n| n.to_string()).collect();
        assert!(check_names("tags", many).is_err());
    }

    #[test]
    fn only_who_may_read_everything_or_has_the_scope_names_groups() {
        let staff = || Some(names(&["staff"]));
        let external = |role| Actor::External {
            subject: "ada".to_owned(),
            role,
            groups: names(&["portal"]),
        };
        for (actor, may_name) in [
            (key(&[KeyScope::Chat]), false),
            (key(&[KeyScope::ChatGroups]), true),
            (key(&[KeyScope::Chat, KeyScope::Ingest]), true),
            (key(&[KeyScope::Admin]), true),
            (external(Role::Editor), true),
        ] {
            let asked = visitor(&actor, staff());
            assert_eq!(asked.is_ok(), may_name, "{actor:?}");
            if let Ok(asked) = asked {
                assert_eq!(asked, Audience::Groups(names(&["staff"])));
            }
        }
        assert_eq!(
            visitor(&key(&[KeyScope::Admin]), None).expect("somebody"),
            Audience::default(),
            "a turn is a visitor's unless somebody says whose"
        );
        assert_eq!(
            visitor(&external(Role::Editor), None).expect("somebody"),
            Audience::Groups(names(&["portal"]))
        );
    }

    #[test]
    fn a_search_finds_everything_for_those_who_may_read_it_anyway() {
        for (actor, audience) in [
            (key(&[KeyScope::Admin]), Audience::Everything),
            (key(&[KeyScope::Chat]), Audience::default()),
            (key(&[KeyScope::ChatGroups]), Audience::default()),
        ] {
            assert_eq!(searcher(&actor, None).expect("somebody"), audience, "{actor:?}");
        }
        let tried = searcher(&key(&[KeyScope::Admin]), Some(vec![])).expect("a visitor");
        assert_eq!(tried, Audience::default());
    }

    #[test]
    fn a_language_is_named_by_a_tag() {
        for tag in [
            "de",
            "EN",
            "pt-BR",
            "zh_Hant-TW",
            "tlh",
            "x-desk",
            "sl-rozaj-1994",
        ] {
            assert!(is_language_tag(tag), "{tag}");
        }
        for odd in [
            "",
            "d",
            "klingon!",
            "-de",
            "de-",
            "de at",
            "1994",
            "英",
            &"de-".repeat(20),
        ] {
            assert!(!is_language_tag(odd), "{odd}");
        }
    }
}
