//! What lies in the Drive, and what happened to it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use super::{FakeDrive, office};

const FOLDER: &str = "application/vnd.google-apps.folder";
const SHORTCUT: &str = "application/vnd.google-apps.shortcut";

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Content {
    Folder,
    Shortcut(String),
    /// An uploaded file: media type and bytes.
    Uploaded(String, Vec<u8>),
    /// A Google document of these paragraphs.
    Document(String),
    /// A Google document whose Office form is over Google's limit.
    HugeDocument(String),
    /// A Google form: it has no text.
    Form,
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub name: String,
    pub content: Content,
    pub parents: Vec<String>,
    pub drive_id: Option<String>,
    pub is_trashed: bool,
    /// Whether the account sees it.
    pub is_shared: bool,
    pub can_download: bool,
    modified: i64,
}

#[derive(Default)]
pub(super) struct Store {
    pub files: BTreeMap<String, Stored>,
    /// The id and the drive of what changed, oldest first. A position in it is a page token.
    pub changes: Vec<(String, Option<String>)>,
    /// Tokens below this are no longer known.
    pub oldest_token: usize,
    made: usize,
    edits: i64,
}

impl Store {
    /// Makes a file; its id tells what it is called.
    pub fn add(&mut self, name: &str, parents: &[&str], content: Content) -> String {
        self.made += 1;
        let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let id = format!("{letters}_{}", self.made);
        let drive_id = parents
            .iter()
            .find_map(|parent| self.files.get(*parent)?.drive_id.clone());
        self.edits += 1;
        let stored = Stored {
            name: name.to_owned(),
            content,
            parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
            drive_id,
            is_trashed: false,
            is_shared: true,
            can_download: true,
            modified: self.edits,
        };
        self.files.insert(id.clone(), stored);
        self.note(&id);
        id
    }

    /// Changes a file, which is told to those who list changes.
    pub fn change(&mut self, id: &str, change: impl FnOnce(&mut Stored)) {
        let stored = self.files.get_mut(id).unwrap_or_else(|| panic!("{id} is a file"));
        change(stored);
        self.note(id);
    }

    pub fn edit(&mut self, id: &str, content: Content) {
        self.edits += 1;
        let modified = self.edits;
        self.change(id, |stored| {
            stored.content = content;
            stored.modified = modified;
        });
    }

    /// Deletes a file for good, and what is in it with it. Only the file itself is told of.
    pub fn delete(&mut self, id: &str) {
        self.note(id);
        let mut waiting = vec![id.to_owned()];
        while let Some(id) = waiting.pop() {
            self.files.remove(&id);
            for (child, file) in &mut self.files {
                let before = file.parents.len();
                file.parents.retain(|parent| *parent != id);
                // What lies in another folder too stays there.
                if file.parents.is_empty() && before > 0 {
                    waiting.push(child.clone());
                }
            }
        }
    }

    /// Moves a file, with all that is in it. Within a drive only the file itself is told of; what comes into another
    /// drive becomes another one's, and is told of one by one, there and where it was.
    pub fn move_to(&mut self, id: &str, parents: &[&str]) {
        let parents: Vec<String> = parents.iter().map(|parent| (*parent).to_owned()).collect();
        let drive_id = parents
            .iter()
            .find_map(|parent| self.files.get(parent)?.drive_id.clone());
        let crosses = self.files[id].drive_id != drive_id;
        self.note(id);
        self.change(id, |file| file.parents = parents);
        if !crosses {
            return;
        }
        let (mut waiting, mut seen) = (vec![id.to_owned()], HashSet::new());
        while let Some(moved) = waiting.pop() {
            if !seen.insert(moved.clone()) {
                continue;
            }
            self.note(&moved);
            self.change(&moved, |file| file.drive_id = drive_id.clone());
            let inside: Vec<String> = self
                .files
                .iter()
                .filter(|(_, file)| file.parents.contains(&moved))
                .map(|(id, _)| id.clone())
                .collect();
            for child in inside {
                // A file of a shared drive lies in one folder.
                self.change(&child, |file| file.parents = vec![moved.clone()]);
                waiting.push(child);
            }
        }
    }

    fn note(&mut self, id: &str) {
        let drive_id = self.files.get(id).and_then(|file| file.drive_id.clone());
        self.changes.push((id.to_owned(), drive_id));
    }

    /// Whether the account can open it.
    pub fn sees(&self, id: &str) -> bool {
        self.files.get(id).is_some_and(|file| file.is_shared)
    }

    /// Whether it is in the trash, itself or with all folders that it lies in.
    pub fn is_trashed(&self, id: &str) -> bool {
        self.is_trashed_below(id, &mut Vec::new())
    }

    fn is_trashed_below<'a>(&'a self, id: &'a str, path: &mut Vec<&'a str>) -> bool {
        let Some(file) = self.files.get(id).filter(|_| !path.contains(&id)) else {
            return false;
        };
        path.push(id);
        let with_folders = !file.parents.is_empty()
            && file
                .parents
                .iter()
                .all(|parent| self.is_trashed_below(parent, path));
        path.pop();
        file.is_trashed || with_folders
    }

    /// The file as the service shows it, with all fields.
    pub fn show(&self, id: &str) -> Value {
        let file = &self.files[id];
        let parents: Vec<&String> = file.parents.iter().filter(|parent| self.sees(parent)).collect();
        let mut shown = json!({
            "kind": "drive#file",
            "id": id,
            "name": file.name,
            "mimeType": media_type(&file.content),
            "modifiedTime": format!("2026-11-20T10:{:02}:{:02}.000Z", file.modified / 60 % 60, file.modified % 60),
            "version": file.modified.to_string(),
            "trashed": self.is_trashed(id),
            "webViewLink": format!("https://drive.google.com/file/d/{id}/view"),
            "capabilities": { "canDownload": file.can_download, "canEdit": false },
        });
        if !parents.is_empty() {
            shown["parents"] = json!(parents);
        }
        if let Some(drive_id) = &file.drive_id {
            shown["driveId"] = json!(drive_id);
        }
        match &file.content {
            Content::Shortcut(target) => {
                let target_type = self.files.get(target).map(|target| media_type(&target.content));
                shown["shortcutDetails"] = json!({ "targetId": target, "targetMimeType": target_type });
            }
            Content::Uploaded(_, bytes) => {
                shown["size"] = json!(bytes.len().to_string());
                shown["md5Checksum"] = json!(hex_md5(bytes));
            }
            Content::Document(text) => shown["size"] = json!(text.len().to_string()),
            Content::Folder | Content::HugeDocument(_) | Content::Form => {}
        }
        shown
    }

    /// An export, where there is such a form. None within: over Google's limit.
    pub fn export(&self, id: &str, media_type: &str) -> Option<Option<Vec<u8>>> {
        let text = |text: &str| [b"\xef\xbb\xbf".as_slice(), text.as_bytes()].concat();
        match (&self.files[id].content, media_type) {
            (Content::Document(paragraphs), "text/plain") => Some(Some(text(paragraphs))),
            (Content::HugeDocument(paragraphs), "text/plain") => Some(Some(text(paragraphs))),
            (Content::Document(paragraphs), office::DOCX) => Some(Some(office::docx(paragraphs))),
            (Content::HugeDocument(_), office::DOCX) => Some(None),
            _ => None,
        }
    }

    /// What a person finds below these roots: each readable file once, with its name and text, shortcuts followed.
    pub fn view(&self, roots: &[&str]) -> BTreeMap<String, String> {
        let (mut view, mut seen) = (BTreeMap::new(), BTreeSet::new());
        let mut waiting: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
        while let Some(id) = waiting.pop() {
            if !self.sees(&id) || self.is_trashed(&id) || !seen.insert(id.clone()) {
                continue;
            }
            match &self.files[&id].content {
                Content::Folder => {
                    let inside = self.files.iter().filter(|(_, file)| file.parents.contains(&id));
                    waiting.extend(inside.map(|(id, _)| id.clone()));
                }
                Content::Shortcut(target) => {
                    let found = self.files.get(target);
                    if found.is_some_and(|found| !matches!(found.content, Content::Shortcut(_))) {
                        waiting.push(target.clone());
                    }
                }
                Content::Uploaded(_, bytes) => {
                    view.insert(id, String::from_utf8_lossy(bytes).into_owned());
                }
                Content::Document(text) | Content::HugeDocument(text) => {
                    view.insert(id, text.clone());
                }
                Content::Form => {}
            }
        }
        view
    }
}

pub(super) fn media_type(content: &Content) -> &str {
    match content {
        Content::Folder => FOLDER,
        Content::Shortcut(_) => SHORTCUT,
        Content::Uploaded(media_type, _) => media_type,
        Content::Document(_) | Content::HugeDocument(_) => "application/vnd.google-apps.document",
        Content::Form => "application/vnd.google-apps.form",
    }
}

fn hex_md5(bytes: &[u8]) -> String {
    Md5::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What people do in their Drive.
impl FakeDrive {
    pub fn folder(&self, name: &str, parents: &[&str]) -> String {
        self.state().store.add(name, parents, Content::Folder)
    }

    /// A text file.
    pub fn text(&self, name: &str, parents: &[&str], text: &str) -> String {
        self.add(
            name,
            parents,
            Content::Uploaded("text/plain".to_owned(), text.as_bytes().to_vec()),
        )
    }

    pub fn document(&self, name: &str, parents: &[&str], text: &str) -> String {
        self.add(name, parents, Content::Document(text.to_owned()))
    }

    pub fn shortcut(&self, name: &str, parents: &[&str], target: &str) -> String {
        self.add(name, parents, Content::Shortcut(target.to_owned()))
    }

    pub fn add(&self, name: &str, parents: &[&str], content: Content) -> String {
        self.state().store.add(name, parents, content)
    }

    /// A shared drive; its id is that of its top folder.
    pub fn shared_drive(&self, name: &str) -> String {
        let mut state = self.state();
        let id = state.store.add(name, &[], Content::Folder);
        let drive_id = id.clone();
        state.store.change(&id, |folder| folder.drive_id = Some(drive_id));
        id
    }

    /// Replaces a text file's text.
    pub fn write(&self, id: &str, text: &str) {
        let mut state = self.state();
        let content = match &state.store.files[id].content {
            Content::Document(_) => Content::Document(text.to_owned()),
            _ => Content::Uploaded("text/plain".to_owned(), text.as_bytes().to_vec()),
        };
        state.store.edit(id, content);
    }

    pub fn rename(&self, id: &str, name: &str) {
        self.state().store.change(id, |file| file.name = name.to_owned());
    }

    /// Moves a file, with all that is in it.
    pub fn move_to(&self, id: &str, parents: &[&str]) {
        self.state().store.move_to(id, parents);
    }

    /// The shared drive that a file is in.
    pub fn drive_of(&self, id: &str) -> Option<String> {
        self.state().store.files[id].drive_id.clone()
    }

    pub fn trash(&self, id: &str) {
        self.state().store.change(id, |file| file.is_trashed = true);
    }

    pub fn untrash(&self, id: &str) {
        self.state().store.change(id, |file| file.is_trashed = false);
    }

    pub fn delete(&self, id: &str) {
        self.state().store.delete(id);
    }

    /// Takes a file from the account's sight, or gives it back.
    pub fn share(&self, id: &str, is_shared: bool) {
        self.state().store.change(id, |file| file.is_shared = is_shared);
    }

    pub fn allow_download(&self, id: &str, can_download: bool) {
        self.state()
            .store
            .change(id, |file| file.can_download = can_download);
    }

    /// All tokens for changes that were given out are forgotten.
    pub fn expire_change_tokens(&self) {
        let mut state = self.state();
        // The present position is a token too, so the next one has to be another.
        state.store.changes.push((String::new(), None));
        state.store.oldest_token = state.store.changes.len();
    }

    /// Id and text of all that can be read below these roots.
    pub fn view(&self, roots: &[&str]) -> BTreeMap<String, String> {
        self.state().store.view(roots)
    }

    /// Ids of all files, folders included.
    pub fn ids(&self) -> Vec<String> {
        self.state().store.files.keys().cloned().collect()
    }
}
