//! Who may choose what is read as the tenant's connected account: that account sees more than the chatbot should.

use super::settings::Settings;
use crate::error::{Error, Result};
use crate::http::access::Actor;
use crate::tenancy::role::Permission;

/// Refuses an actor who makes or changes a source in a way that chooses files for the connected account and may not
/// connect it. A source with credentials of its own reads what these open.
pub(super) fn check(before: Option<&Settings>, after: &Settings, actor: &Actor) -> Result<()> {
    let Settings::Drive(drive) = after else {
        return Ok(());
    };
    let is_chosen_already = before.is_some_and(|before| match before {
        Settings::Drive(before) => {
            !before.own_credentials
                && before.folder_id == drive.folder_id
                && before.shared_drive_id == drive.shared_drive_id
                && before.file_ids == drive.file_ids
        }
        _ => false,
    });
    if drive.own_credentials || is_chosen_already || actor.allows(Permission::Admin) {
        return Ok(());
    }
    Err(Error::Forbidden {
        code: "connection_needs_admin",
        message: "what is read with the tenant's Google connection needs the permission admin: give the source credentials of its own, or ask an admin of the tenant".into(),
    })
}
