//! Who changes a generation or a cut, and the line of the audit log that says so.

use serde_json::{Value, json};

use super::state;
use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::http::access::Actor;
use crate::id::TenantId;
use crate::tenancy::audit::{self, Change, Origin};

/// Who changes it.
#[derive(Clone, Copy, Debug)]
pub enum By<'a> {
    Caller(&'a Actor, &'a Origin),
    /// It goes live by itself, or is not wanted any more.
    Itself,
}

/// What became of it: the action, the id, and what holds before and after.
pub(super) struct Deed {
    pub action: &'static str,
    pub id: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

impl Deed {
    /// One in this state was given up.
    pub(super) fn retirement(id: String, state: &str) -> Self {
        Self {
            action: "generation.retire",
            id,
            before: Some(json!({ "state": state })),
            after: Some(json!({ "state": state::RETIRED })),
        }
    }
}

impl By<'_> {
    /// Writes it down, in the transaction that does it.
    pub(super) async fn record(
        self,
        app: &App,
        write: &mut Write,
        tenant_id: TenantId,
        deed: Deed,
    ) -> Result<()> {
        let change = Change {
            action: deed.action,
            object_kind: "generation",
            object_id: deed.id,
            before: deed.before,
            after: deed.after,
        };
        let now = app.clock.now();
        match self {
            By::Caller(actor, origin) => audit::record(write, tenant_id, actor, origin, change, now).await,
            By::Itself => {
                let actor = ("system", "generations");
                audit::record_as(write, tenant_id, actor, &Origin::default(), change, now).await
            }
        }
    }
}
