//! Which files are in the chosen scope: what lies below its folders, what its shortcuts point at, what was named.
//!
//! Drive's folders are no tree: files may lie in several, shortcuts make cycles, and a change of one folder tells
//! nothing of what is in it. So the graph is kept, changes are applied to it, and what can be reached from the scope's
//! roots is in scope. Where the graph does not say enough, [`Tree::questions`] names what to ask Drive.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::client::{Change, Drive};
use super::error::DriveError;
use super::file::{File, FileKind};

/// Where reading begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// With all below them. A shared drive's id is also that of its top folder.
    pub folders: Vec<String>,
    /// Single files.
    pub files: Vec<String>,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    pub kind: NodeKind,
    pub name: String,
    pub url: String,
    /// Changes when the content may have.
    pub version: String,
    pub parents: Vec<String>,
    /// The shared drive it is in.
    pub drive_id: Option<String>,
    /// Drive is to be asked about it again, although it is known.
    #[serde(default)]
    pub doubted: bool,
}

/// What a file is in the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// `listed`: what is in it is in the graph too.
    Folder {
        listed: bool,
    },
    Shortcut {
        target: Option<String>,
    },
    /// Something to read, or to report as unreadable.
    Document,
}

/// What Drive has to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What is this file?
    LookUp { id: String },
    /// What is in this folder?
    List { id: String, drive_id: Option<String> },
}

/// What Drive says to a [`Question`].
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    File(File),
    Children(Vec<File>),
    /// It is gone, or the account does not see it.
    Missing,
}

/// The graph of a source.
#[derive(Debug, Default)]
pub struct Tree {
    scope: Scope,
    nodes: HashMap<String, Node>,
    children: HashMap<String, BTreeSet<String>>,
    /// Ids that Drive was asked about in vain.
    missing: HashSet<String>,
    /// Nodes that were put, changed or removed since [`Tree::take_changes`].
    touched: BTreeSet<String>,
}

/// What to store of a tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TreeChanges {
    pub put: Vec<Node>,
    pub removed: Vec<String>,
}

impl Tree {
    /// The graph as it was stored.
    pub fn new(scope: Scope, nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut tree = Self {
            scope,
            ..Self::default()
        };
        for node in nodes {
            tree.insert(node);
        }
        tree.touched.clear();
        tree
    }

    /// Files that are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Believes nothing of what is known: everything is asked anew.
    pub fn doubt_everything(&mut self) {
        // What shortcuts point at is in no folder that is going to be listed.
        let targets: HashSet<String> = self.targets().map(str::to_owned).collect();
        self.doubt(|node| (targets.contains(&node.id), true));
        self.doubt_roots();
    }

    /// The roots are asked about at each run: losing one is no change that a list of changes has to tell.
    pub fn doubt_roots(&mut self) {
        let scope = self.scope.clone();
        self.doubt(|node| {
            (
                scope.folders.contains(&node.id) || scope.files.contains(&node.id),
                false,
            )
        });
    }

    /// What lies in other drives than the one whose changes are followed is asked about anew.
    pub fn doubt_foreign(&mut self, followed: Option<&str>) {
        self.doubt(|node| {
            let is_foreign = node.drive_id.as_deref() != followed;
            (is_foreign, is_foreign)
        });
    }

    /// `judge` tells for each node whether it is doubted, and whether a folder's list is.
    fn doubt(&mut self, judge: impl Fn(&Node) -> (bool, bool)) {
        for node in self.nodes.values_mut() {
            let (is_doubted, is_unlisted) = judge(node);
            if is_doubted && !node.doubted {
                node.doubted = true;
                self.touched.insert(node.id.clone());
            }
            if is_unlisted && node.kind == (NodeKind::Folder { listed: true }) {
                node.kind = NodeKind::Folder { listed: false };
                self.touched.insert(node.id.clone());
            }
        }
    }

    /// Takes in what happened.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Removed { id } => self.remove(&id),
            Change::Present(file) => {
                // What a shortcut points at may have come back.
                self.missing.remove(&file.id);
                self.put(file);
            }
        }
    }

    /// What to ask next, at most `limit` questions; none when the graph says everything.
    pub fn questions(&self, limit: usize) -> Vec<Question> {
        let reachable = self.reachable();
        let known = reachable.iter().filter_map(|id| self.nodes.get(*id));
        let (mut to_look_up, mut to_list) = (BTreeSet::new(), BTreeMap::new());
        for node in known {
            match &node.kind {
                // A folder in doubt may be gone, or in another drive: it is not listed yet.
                _ if node.doubted => {
                    to_look_up.insert(node.id.as_str());
                }
                NodeKind::Folder { listed: false } => {
                    to_list.insert(node.id.as_str(), node.drive_id.clone());
                }
                NodeKind::Shortcut { target: Some(target) } => {
                    to_look_up.insert(target);
                }
                NodeKind::Folder { listed: true }
                | NodeKind::Shortcut { target: None }
                | NodeKind::Document => {}
            }
        }
        to_look_up.extend(
            self.scope
                .folders
                .iter()
                .chain(&self.scope.files)
                .map(String::as_str),
        );
        let is_open = |id: &&str| {
            let is_settled = self.nodes.get(*id).is_some_and(|node| !node.doubted);
            !is_settled && !self.missing.contains(*id)
        };
        let look_ups = to_look_up
            .into_iter()
            .filter(is_open)
            .map(|id| Question::LookUp { id: id.to_owned() });
        let lists = to_list.into_iter().map(|(id, drive_id)| Question::List {
            id: id.to_owned(),
            drive_id,
        });
        look_ups.chain(lists).take(limit).collect()
    }

    /// What is to be asked about the roots alone, before anything else.
    pub fn root_questions(&self) -> Vec<Question> {
        let roots: HashSet<&String> = self.scope.folders.iter().chain(&self.scope.files).collect();
        let mut questions = self.questions(usize::MAX);
        questions.retain(|question| matches!(question, Question::LookUp { id } if roots.contains(id)));
        questions
    }

    /// Takes in what Drive said.
    pub fn answer(&mut self, question: &Question, answer: Answer) {
        let (Question::LookUp { id } | Question::List { id, .. }) = question;
        match answer {
            Answer::Missing => {
                self.remove(id);
                self.missing.insert(id.clone());
            }
            // A shortcut's target that lies in the trash is as good as gone.
            Answer::File(file) if file.is_trashed => {
                self.remove(id);
                self.missing.insert(id.clone());
            }
            Answer::File(file) => self.put(file),
            Answer::Children(files) => self.put_children(id, files),
        }
    }

    /// Roots that are folders and gone: then nothing can be told of what was below them.
    pub fn lost_folders(&self) -> impl Iterator<Item = &str> {
        self.scope
            .folders
            .iter()
            .map(String::as_str)
            .filter(|id| self.missing.contains(*id))
    }

    /// Whether none of the roots is there.
    pub fn has_lost_all(&self) -> bool {
        let mut roots = self.scope.folders.iter().chain(&self.scope.files);
        roots.all(|id| self.missing.contains(id))
    }

    /// The shared drive whose changes are to be followed: that of the first root.
    pub fn followed_drive(&self) -> Option<&str> {
        let first = self.scope.folders.iter().chain(&self.scope.files).next()?;
        self.nodes.get(first)?.drive_id.as_deref()
    }

    /// What is in scope and can be read, each once, by id.
    pub fn documents(&self) -> Vec<&Node> {
        let mut documents: Vec<&Node> = self
            .reachable()
            .into_iter()
            .filter_map(|id| self.nodes.get(id))
            .filter(|node| node.kind == NodeKind::Document)
            .collect();
        documents.sort_by(|a, b| a.id.cmp(&b.id));
        documents
    }

    /// Forgets what is out of scope.
    pub fn prune(&mut self) {
        let reachable: HashSet<String> = self.reachable().into_iter().map(str::to_owned).collect();
        let unreachable: Vec<String> = self
            .nodes
            .keys()
            .filter(|id| !reachable.contains(*id))
            .cloned()
            .collect();
        for id in unreachable {
            self.remove(&id);
        }
    }

    /// What has to be stored since the last time this was asked.
    pub fn take_changes(&mut self) -> TreeChanges {
        let mut changes = TreeChanges::default();
        for id in std::mem::take(&mut self.touched) {
            match self.nodes.get(&id) {
                Some(node) => changes.put.push(node.clone()),
                None => changes.removed.push(id),
            }
        }
        changes
    }

    /// All ids that can be reached from the roots. Each is visited once, so cycles end.
    fn reachable(&self) -> HashSet<&str> {
        let roots = self.scope.folders.iter().chain(&self.scope.files);
        let mut waiting: Vec<&str> = roots.map(String::as_str).collect();
        let mut reached = HashSet::new();
        while let Some(id) = waiting.pop() {
            let Some(node) = self.nodes.get(id) else {
                continue;
            };
            if !reached.insert(node.id.as_str()) {
                continue;
            }
            match &node.kind {
                NodeKind::Folder { .. } => {
                    waiting.extend(self.children.get(id).into_iter().flatten().map(String::as_str));
                }
                // A pointer at a pointer is not followed.
                NodeKind::Shortcut { target } => waiting.extend(target.as_deref().filter(|target| {
                    let found = self.nodes.get(*target);
                    found.is_some_and(|node| !matches!(node.kind, NodeKind::Shortcut { .. }))
                })),
                NodeKind::Document => {}
            }
        }
        reached
    }

    fn targets(&self) -> impl Iterator<Item = &str> {
        self.nodes.values().filter_map(|node| match &node.kind {
            NodeKind::Shortcut { target } => target.as_deref(),
            _ => None,
        })
    }

    fn put(&mut self, file: File) {
        if file.is_trashed {
            self.remove(&file.id);
            return;
        }
        let was_listed = matches!(
            self.nodes.get(&file.id),
            Some(Node {
                kind: NodeKind::Folder { listed: true },
                ..
            })
        );
        self.insert(Node {
            kind: match file.kind {
                FileKind::Folder => NodeKind::Folder { listed: was_listed },
                FileKind::Shortcut { target } => NodeKind::Shortcut { target },
                FileKind::Uploaded | FileKind::Google(_) | FileKind::Unreadable { .. } => NodeKind::Document,
            },
            id: file.id,
            name: file.name,
            url: file.url,
            version: file.version,
            parents: file.parents,
            drive_id: file.drive_id,
            doubted: false,
        });
    }

    fn put_children(&mut self, folder: &str, files: Vec<File>) {
        let listed: HashSet<String> = files.iter().map(|file| file.id.clone()).collect();
        let absent: Vec<String> = self.children.get(folder).into_iter().flatten().cloned().collect();
        for id in absent.iter().filter(|id| !listed.contains(*id)) {
            self.leave(id, folder);
        }
        for mut file in files {
            if !file.parents.iter().any(|parent| parent == folder) {
                file.parents.push(folder.to_owned());
            }
            self.missing.remove(&file.id);
            self.put(file);
        }
        if let Some(node) = self.nodes.get_mut(folder) {
            node.kind = NodeKind::Folder { listed: true };
            self.touched.insert(folder.to_owned());
        }
    }

    /// A file is no longer in a folder.
    fn leave(&mut self, id: &str, folder: &str) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.parents.retain(|parent| parent != folder);
            self.touched.insert(id.to_owned());
        }
        if let Some(children) = self.children.get_mut(folder) {
            children.remove(id);
        }
    }

    fn insert(&mut self, node: Node) {
        if self.nodes.get(&node.id) == Some(&node) {
            return;
        }
        self.unlink(&node.id);
        for parent in &node.parents {
            self.children
                .entry(parent.clone())
                .or_default()
                .insert(node.id.clone());
        }
        self.touched.insert(node.id.clone());
        self.nodes.insert(node.id.clone(), node);
    }

    fn remove(&mut self, id: &str) {
        self.unlink(id);
        if self.nodes.remove(id).is_some() {
            self.touched.insert(id.to_owned());
        }
    }

    /// Takes a node out of its folders' children.
    fn unlink(&mut self, id: &str) {
        let parents = self
            .nodes
            .get(id)
            .map(|node| node.parents.clone())
            .unwrap_or_default();
        for parent in parents {
            if let Some(children) = self.children.get_mut(&parent) {
                children.remove(id);
                if children.is_empty() {
                    self.children.remove(&parent);
                }
            }
        }
    }
}

impl Drive {
    /// Answers a question about the graph.
    pub async fn answer(&self, question: &Question) -> Result<Answer, DriveError> {
        let answer = match question {
            Question::LookUp { id } => self.file(id).await.map(Answer::File),
            Question::List { id, drive_id } => self
                .list_folder(id, drive_id.as_deref())
                .await
                .map(Answer::Children),
        };
        match answer {
            Err(DriveError::NotFound) => Ok(Answer::Missing),
            answer => answer,
        }
    }
}
