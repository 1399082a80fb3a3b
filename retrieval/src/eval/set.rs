//! A test set for passages: a directory with `corpus.jsonl`, `queries.jsonl` and `qrels.tsv` or `qrels/test.tsv`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a set cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Mend the line; lines count from 1.
    #[error("{path}, line {line}: {reason}")]
    BadLine {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    /// The files are not of one set, or nothing in them is asked.
    #[error("the set in {path} measures nothing: {reason}")]
    Unusable { path: PathBuf, reason: &'static str },
}

/// Documents, questions, and which documents answer which questions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TestSet {
    pub documents: Vec<SetDocument>,
    pub questions: Vec<SetQuestion>,
    /// Per question id: the documents with a score above zero. Questions without one have no entry.
    pub relevant: HashMap<String, BTreeMap<String, f64>>,
}

/// One passage; it becomes one chunk.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SetDocument {
    #[serde(rename = "_id")]
    pub id: String,
    #[serde(default)]
    pub title: String,
    pub text: String,
}

impl SetDocument {
    /// Title and text, as they are indexed.
    pub fn full_text(&self) -> String {
        format!("{} {}", self.title, self.text).trim().to_owned()
    }
}

/// One question. Sets of conversations have its turns, too.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SetQuestion {
    #[serde(rename = "_id")]
    pub id: String,
    pub text: String,
    /// False: nothing in the corpus answers it.
    #[serde(default)]
    pub answerable: Option<bool>,
    /// The question so that it stands alone, by a person.
    #[serde(default)]
    pub rewrite: Option<String>,
    /// What the asker said so far, this question last.
    #[serde(default)]
    pub user_turns: Option<Vec<String>>,
}

/// Which wording of a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wording {
    AsTyped,
    Rewrite,
    AllTurns,
}

impl TestSet {
    /// Reads the set in `dir`.
    pub fn read(dir: &Path) -> Result<Self, SetError> {
        let documents = read_lines(&dir.join("corpus.jsonl"))?;
        let questions = read_lines(&dir.join("queries.jsonl"))?;
        let split = dir.join("qrels").join("test.tsv");
        let judgements = if split.exists() {
            split
        } else {
            dir.join("qrels.tsv")
        };
        let relevant = read_judgements(&judgements)?;
        let set = Self {
            documents,
            questions,
            relevant,
        };
        set.check().map_err(|reason| SetError::Unusable {
            path: dir.to_owned(),
            reason,
        })?;
        Ok(set)
    }

    /// Whether its files belong together: files of different sets would read as a search that finds nothing.
    fn check(&self) -> Result<(), &'static str> {
        if self.documents.is_empty() {
            return Err("corpus.jsonl has no documents");
        }
        if self.asked().next().is_none() {
            return Err("no question of queries.jsonl is judged, and none is said to have no answer");
        }
        let documents: HashSet<&str> = self
            .documents
            .iter()
            .map(|document| document.id.as_str())
            .collect();
        let is_there = |document: &String| documents.contains(document.as_str());
        let mut judged = self
            .questions
            .iter()
            .filter_map(|question| self.relevant.get(&question.id))
            .peekable();
        if judged.peek().is_some() && !judged.any(|relevant| relevant.keys().any(is_there)) {
            return Err("no document that its questions are judged by is in corpus.jsonl");
        }
        Ok(())
    }

    /// Whether questions have this wording.
    pub fn has(&self, wording: Wording) -> bool {
        let has = |question: &SetQuestion| question.wording(wording).is_some();
        !self.questions.is_empty() && self.questions.iter().all(has)
    }

    /// The questions that are asked: those with a relevant document, and those that are known to have none. BEIR's sets
    /// list the questions of all splits; those of others are left out.
    pub fn asked(&self) -> impl Iterator<Item = &SetQuestion> {
        self.questions
            .iter()
            .filter(|question| self.relevant.contains_key(&question.id) || question.answerable == Some(false))
    }
}

impl SetQuestion {
    /// The question in this wording, where the set has it.
    pub fn wording(&self, wording: Wording) -> Option<String> {
        match wording {
            Wording::AsTyped => Some(self.text.clone()),
            Wording::Rewrite => self.rewrite.clone(),
            Wording::AllTurns => self.user_turns.as_ref().map(|turns| turns.join(" ")),
        }
    }
}

/// One JSON object a line; empty lines are skipped. Ids may not repeat.
pub(super) fn read_lines<T: DeserializeOwned + HasId>(path: &Path) -> Result<Vec<T>, SetError> {
    let text = read(path)?;
    let mut ids = HashSet::new();
    let mut found = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() {
            continue;
        }
        let bad = |reason: String| bad_line(path, line, reason);
        let value: T = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        if !ids.insert(value.id().to_owned()) {
            return Err(bad(format!("the id {:?} is there twice", value.id())));
        }
        found.push(value);
    }
    Ok(found)
}

/// What a line of a set is known by.
pub(super) trait HasId {
    fn id(&self) -> &str;
}

impl HasId for SetDocument {
    fn id(&self) -> &str {
        &self.id
    }
}

impl HasId for SetQuestion {
    fn id(&self) -> &str {
        &self.id
    }
}

/// Question, document and score, parted by tabs. A first line that names the columns is left out.
fn read_judgements(path: &Path) -> Result<HashMap<String, BTreeMap<String, f64>>, SetError> {
    let text = read(path)?;
    let mut relevant: HashMap<String, BTreeMap<String, f64>> = HashMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() || (line == 1 && is_heading(text)) {
            continue;
        }
        let mut fields = text.split('\t');
        let (Some(question), Some(document), Some(score), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            let wanted = "three fields parted by tabs are expected: question, document, score";
            return Err(bad_line(path, line, wanted.to_owned()));
        };
        let score: f64 = score
            .trim()
            .parse()
            .ok()
            .filter(|score: &f64| score.is_finite())
            .ok_or_else(|| bad_line(path, line, format!("{score:?} is no score")))?;
        if score > 0.0 {
            let documents = relevant.entry(question.to_owned()).or_default();
            documents.insert(document.to_owned(), score);
        }
    }
    Ok(relevant)
}

/// Names of the three columns; a judgement ends in a number.
fn is_heading(line: &str) -> bool {
    let fields: Vec<&str> = line.split('\t').collect();
    matches!(fields.as_slice(), [_, _, last] if last.trim().parse::<f64>().is_err())
}

/// The text of a file, without the mark that some editors put before it.
fn read(path: &Path) -> Result<String, SetError> {
    let text = fs::read_to_string(path).map_err(|source| SetError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn bad_line(path: &Path, line: usize, reason: String) -> SetError {
    SetError::BadLine {
        path: path.to_owned(),
        line,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        }
        dir
    }

    const HEADING: &str = "query-id\tcorpus-id\tscore\n";
    const CORPUS: &str = "{\"_id\": \"d1\", \"title\": \"Returns\", \"text\": \"Within 30 days.\"}\n\n{\"_id\": \"d2\", \"text\": \"Free.\", \"more\": 1}\n";
    const QUERIES: &str = "{\"_id\": \"q1\", \"text\": \"how long\", \"user_turns\": [\"hello\", \"how long\"], \"rewrite\": \"how long may I\"}\n{\"_id\": \"q2\", \"text\": \"who\", \"answerable\": false}\n{\"_id\": \"q3\", \"text\": \"of another split\"}\n";

    #[test]
    fn a_set_is_read_with_its_judgements_above_zero() {
        let dir = written(&[
            ("corpus.jsonl", CORPUS),
            ("queries.jsonl", QUERIES),
            ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"),
        ]);

        let set = TestSet::read(dir.path()).expect("a set");

        assert_eq!(set.documents[0].full_text(), "Returns Within 30 days.");
        assert_eq!(set.documents[1].full_text(), "Free.");
        assert_eq!(set.relevant["q1"], BTreeMap::from([("d1".to_owned(), 1.0)]));
        let asked: Vec<&str> = set.asked().map(|question| question.id.as_str()).collect();
        assert_eq!(asked, ["q1", "q2"]);
        assert_eq!(
            set.questions[0].wording(Wording::AllTurns).as_deref(),
            Some("hello how long")
        );
        assert!(set.has(Wording::AsTyped) && !set.has(Wording::Rewrite));
    }

    #[test]
    fn the_test_split_goes_before_judgements_of_all() {
        let dir = written(&[
            ("corpus.jsonl", CORPUS),
            ("queries.jsonl", QUERIES),
            ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\n"),
            ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq3\td2\t2\n"),
        ]);

        let set = TestSet::read(dir.path()).expect("a set");

        assert_eq!(set.relevant.keys().collect::<Vec<_>>(), ["q3"]);
    }

    #[test]
    fn judgements_without_headings_lose_none() {
        let dir = written(&[
            ("corpus.jsonl", CORPUS),
            ("queries.jsonl", QUERIES),
            ("qrels.tsv", "q1\td1\t1\nq3\td2\t1\n"),
        ]);

        let set = TestSet::read(dir.path()).expect("a set");

        assert_eq!(set.relevant["q1"], BTreeMap::from([("d1".to_owned(), 1.0)]));
        assert_eq!(set.relevant.len(), 2);
    }

    #[test]
    fn a_mark_before_a_files_text_is_no_part_of_it() {
        let marked = |text: &str| format!("\u{feff}{text}");
        let dir = written(&[
            ("corpus.jsonl", &marked(CORPUS)),
            ("queries.jsonl", &marked(QUERIES)),
            ("qrels.tsv", &marked("q1\td1\t1\n")),
        ]);

        let set = TestSet::read(dir.path()).expect("a set");

        assert_eq!((set.documents.len(), set.questions.len()), (2, 3));
        assert!(set.relevant.contains_key("q1"));
    }

    #[test]
    fn a_set_without_documents_is_none() {
        let dir = written(&[
            ("corpus.jsonl", ""),
            ("queries.jsonl", QUERIES),
            ("qrels.tsv", HEADING),
        ]);

        let error = TestSet::read(dir.path()).expect_err("no set").to_string();

        assert!(error.contains("no documents"), "{error}");
    }

    #[test]
    fn files_of_different_sets_are_no_set() {
        for (judgements, queries, reason) in [
            ("q1\tother\t1\nq3\tanother\t1\n", QUERIES, "no document"),
            (
                "other\td1\t1\n",
                "{\"_id\": \"q1\", \"text\": \"how long\"}\n",
                "no question",
            ),
            (
                HEADING,
                "{\"_id\": \"q1\", \"text\": \"how long\"}\n",
                "no question",
            ),
        ] {
            let dir = written(&[
                ("corpus.jsonl", CORPUS),
                ("queries.jsonl", queries),
                ("qrels.tsv", judgements),
            ]);

            let error = TestSet::read(dir.path()).expect_err("no set").to_string();

            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for (name, text, at) in [
            (
                "corpus.jsonl",
                "{\"_id\": \"d1\", \"text\": \"x\"}\n{\"_id\": 5}\n",
                "corpus.jsonl, line 2",
            ),
            (
                "corpus.jsonl",
                "{\"_id\": \"d1\", \"text\": \"x\"}\n{\"_id\": \"d1\", \"text\": \"y\"}\n",
                "twice",
            ),
            (
                "qrels.tsv",
                "query-id\tcorpus-id\tscore\nq1\td1\tmany\n",
                "qrels.tsv, line 2: \"many\" is no score",
            ),
            ("qrels.tsv", "q1\td1\t1\nq1 d1 1\n", "three fields"),
            // As TREC writes it: not to be taken for names of columns.
            ("qrels.tsv", "q1 0 d1 1\n", "qrels.tsv, line 1: three fields"),
        ] {
            let dir = written(&[
                ("corpus.jsonl", CORPUS),
                ("queries.jsonl", QUERIES),
                ("qrels.tsv", "q1\td1\t1\n"),
            ]);
            fs::write(dir.path().join(name), text).expect("written");

            let error = TestSet::read(dir.path()).expect_err("a bad line").to_string();

            assert!(error.contains(at), "{error}");
        }
        let error = TestSet::read(Path::new("nowhere"))
            .expect_err("no set")
            .to_string();
        assert!(error.contains("corpus.jsonl"), "{error}");
    }
}
