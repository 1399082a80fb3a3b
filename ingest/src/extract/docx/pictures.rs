//! Pictures of a text document, each read where it is shown first.

use std::collections::HashMap;

use crate::document::DocumentBuilder;
use crate::extract::package::Package;

/// The pictures that a document may show.
pub(super) struct Pictures<'p, 'a> {
    package: &'p mut Package<'a>,
    /// Parts by the ids that drawings call them by; each is taken once.
    parts: HashMap<String, String>,
}

impl<'p, 'a> Pictures<'p, 'a> {
    pub(super) fn new(package: &'p mut Package<'a>, parts: HashMap<String, String>) -> Self {
        Self { package, parts }
    }

    /// Leaves the place of the picture `id` in the text, unless it was shown before.
    pub(super) fn show(&mut self, id: &str, builder: &mut DocumentBuilder) {
        let Some(part) = self.parts.remove(id) else { return };
        // The same part may go by several ids.
        self.parts.retain(|_, other| *other != part);
        self.package.put_medium(&part, builder);
    }
}
