//! What holds within a group of control words, and ends with it.

/// Where text goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Destination {
    #[default]
    Body,
    /// The number or bullet of a list item.
    Label,
    /// The document's properties, of which only the title is read.
    Properties,
    Title,
    Fonts,
    Styles,
    Skipped,
}

/// Groups that hold no text of the document.
const SKIPPED: [&str; 34] = [
    "colortbl",
    "pict",
    "object",
    "objdata",
    "objclass",
    "header",
    "headerl",
    "headerr",
    "headerf",
    "footer",
    "footerl",
    "footerr",
    "footerf",
    "ftnsep",
    "ftnsepc",
    "fldinst",
    "themedata",
    "colorschememapping",
    "datastore",
    "latentstyles",
    "listtable",
    "listoverridetable",
    "revtbl",
    "rsidtbl",
    "xmlnstbl",
    "generator",
    "filetbl",
    "template",
    "annotation",
    "atnid",
    "atnauthor",
    "nonshppict",
    "bkmkstart",
    "bkmkend",
];

/// Groups marked as ignorable whose text is shown all the same.
const SHOWN: [&str; 5] = ["shptxt", "shpinst", "shprslt", "footnote", "listtext"];

#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) destination: Destination,
    /// Nothing but marks stood in the group so far: its first word says what it is.
    pub(super) is_start: bool,
    /// Programs that do not know the first word pass over the group.
    pub(super) is_ignorable: bool,
    pub(super) is_hidden: bool,
    pub(super) is_in_table: bool,
    pub(super) is_in_list: bool,
    pub(super) font: i32,
    pub(super) style: Option<i32>,
    pub(super) outline: Option<u8>,
    /// Characters behind a Unicode escape for programs that do not know it.
    pub(super) stand_ins: u32,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            destination: Destination::Body,
            is_start: false,
            is_ignorable: false,
            is_hidden: false,
            is_in_table: false,
            is_in_list: false,
            font: 0,
            style: None,
            outline: None,
            stand_ins: 1,
        }
    }
}

impl Group {
    pub(super) fn takes_text(&self) -> bool {
        !matches!(
            self.destination,
            Destination::Skipped | Destination::Fonts | Destination::Properties
        )
    }

    /// Takes the first word of a group, which may say where its text goes.
    pub(super) fn enter(&mut self, name: &str) {
        let is_ignorable = std::mem::take(&mut self.is_ignorable);
        if self.destination == Destination::Skipped {
            return;
        }
        self.destination = match name {
            "fonttbl" => Destination::Fonts,
            "stylesheet" => Destination::Styles,
            "info" => Destination::Properties,
            "title" if self.destination == Destination::Properties => Destination::Title,
            _ if self.destination == Destination::Properties => Destination::Skipped,
            "listtext" | "pntext" => Destination::Label,
            name if SKIPPED.contains(&name) => Destination::Skipped,
            name if SHOWN.contains(&name) => self.destination,
            // Styles and fonts are marked one by one.
            "cs" | "ds" | "ts" | "tsrowd" if self.destination == Destination::Styles => Destination::Skipped,
            _ if is_ignorable => Destination::Skipped,
            _ => self.destination,
        };
    }
}
