//! Reports side by side, as Markdown: a table for each measure, a row for each set, a column for each system.
//!
//! Nothing in it depends on the day or on the machine: no time taken is told, and three decimals are what differences of
//! rounding between processors leave alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Deserialize;

/// What one system reached. Files of figures that others published have the same shape and leave out what is not known.
#[derive(Debug, Deserialize)]
pub(super) struct Column {
    system: String,
    /// The number of the rules by which our own words were read.
    analysis: Option<u32>,
    sets: Vec<SetFigures>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SetFigures {
    name: String,
    /// Questions that have an answer, of a set of passages and of one of fixed answers.
    judged: Option<usize>,
    in_scope: Option<usize>,
    measures: MeasureFigures,
    top_1: Option<f64>,
    abstention: Option<AbstentionFigures>,
    declined: Option<f64>,
    declined_without_answer: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MeasureFigures {
    ndcg_at_10: Option<f64>,
    recall_at_5: Option<f64>,
    recall_at_10: Option<f64>,
    recall_at_100: Option<f64>,
    mrr_at_10: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AbstentionFigures {
    auroc: Option<f64>,
    best_f1: Option<f64>,
}

type Pick = fn(&SetFigures) -> Option<f64>;

/// The measures in the order of their tables.
const MEASURES: [(&str, Pick); 10] = [
    ("nDCG@10", |set| set.measures.ndcg_at_10),
    ("Recall@5", |set| set.measures.recall_at_5),
    ("Recall@10", |set| set.measures.recall_at_10),
    ("Recall@100", |set| set.measures.recall_at_100),
    ("MRR@10", |set| set.measures.mrr_at_10),
    ("Fixed answers: top-1", |set| set.top_1),
    ("Confidence: AUROC", |set| {
        set.abstention.as_ref().and_then(|abstention| abstention.auroc)
    }),
    ("No answer: F1 at the best threshold", |set| {
        set.abstention.as_ref().and_then(|abstention| abstention.best_f1)
    }),
    ("Declined, of questions with an answer", |set| set.declined),
    ("Declined, of questions without one", |set| {
        set.declined_without_answer
    }),
];

/// One report, or a list of them.
pub(super) fn read(text: &str) -> Result<Vec<Column>, serde_json::Error> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text);
    }
    serde_json::from_str(text).map(|column| vec![column])
}

/// All tables, and what our own figures are of. Sets and systems without a figure of a measure are left out of its table.
pub(super) fn tables(columns: &[Column]) -> String {
    let mut text = String::new();
    let rules: BTreeSet<u32> = columns.iter().filter_map(|column| column.analysis).collect();
    for number in rules {
        let _ = write!(
            text,
            "Words were read by the rules of number {number} (`retrieval::analysis`).\n\n"
        );
    }
    for (title, pick) in MEASURES {
        let has_any = |column: &&Column| column.sets.iter().any(|set| pick(set).is_some());
        let columns: Vec<&Column> = columns.iter().filter(has_any).collect();
        if columns.is_empty() {
            continue;
        }
        let rows = rows(&columns, pick);
        let _ = write!(text, "## {title}\n\n| set | questions |");
        columns.iter().for_each(|column| {
            let _ = write!(text, " {} |", column.system);
        });
        text += "\n|---|---:|";
        text += &"---:|".repeat(columns.len());
        text.push('\n');
        for row in &rows {
            let questions = row.questions.map_or_else(String::new, |count| count.to_string());
            let _ = write!(text, "| {} | {questions} |", row.set);
            figures(&mut text, &row.figures);
        }
        if rows.len() > 1 {
            text += "| mean | |";
            figures(&mut text, &means(&rows));
        }
        text.push('\n');
    }
    text
}

struct Row<'a> {
    set: &'a str,
    questions: Option<usize>,
    figures: Vec<Option<f64>>,
}

/// The sets in the order in which the columns name them.
fn rows<'a>(columns: &[&'a Column], pick: Pick) -> Vec<Row<'a>> {
    let mut names: Vec<&'a str> = Vec::new();
    for set in columns.iter().flat_map(|column| &column.sets) {
        if !names.contains(&set.name.as_str()) {
            names.push(&set.name);
        }
    }
    let row = |set: &'a str| {
        let of = |column: &&'a Column| column.sets.iter().find(|own| own.name == set);
        let found: Vec<Option<&SetFigures>> = columns.iter().map(of).collect();
        Row {
            set,
            questions: found.iter().flatten().find_map(|set| set.judged.or(set.in_scope)),
            figures: found.iter().map(|set| set.and_then(pick)).collect(),
        }
    };
    names
        .into_iter()
        .map(row)
        .filter(|row| row.figures.iter().any(Option::is_some))
        .collect()
}

/// Of the columns that have a figure in each row: others could not be compared.
fn means(rows: &[Row<'_>]) -> Vec<Option<f64>> {
    let columns = rows.first().map_or(0, |row| row.figures.len());
    let mean = |column: usize| {
        let all: Option<Vec<f64>> = rows.iter().map(|row| row.figures[column]).collect();
        all.map(|all| all.iter().sum::<f64>() / all.len() as f64)
    };
    (0..columns).map(mean).collect()
}

fn figures(text: &mut String, figures: &[Option<f64>]) {
    for figure in figures {
        let _ = match figure {
            Some(figure) => write!(text, " {figure:.3} |"),
            None => write!(text, " |"),
        };
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = r#"{"system": "ours", "analysis": 6, "sets": [
        {"name": "claims", "kind": "passages", "judged": 809, "measures": {"ndcg_at_10": 0.73071}, "abstention": null, "questions": []},
        {"name": "papers", "kind": "passages", "judged": 500, "measures": {"ndcg_at_10": 0.99}},
        {"name": "answers", "kind": "faq", "in_scope": 499, "top_1": 0.95, "abstention": {"auroc": 0.96}}]}"#;
    const OTHERS: &str = r#"[{"system": "words", "sets": [{"name": "claims", "measures": {"ndcg_at_10": 0.6947}}]},
        {"system": "none", "sets": []}]"#;

    #[test]
    fn each_measure_has_a_table_of_sets_by_systems() {
        let mut columns = read(OTHERS).expect("a list");
        columns.extend(read(OURS).expect("one"));

        let text = tables(&columns);

        let expected = "Words were read by the rules of number 6 (`retrieval::analysis`).\n\n\
            ## nDCG@10\n\n| set | questions | words | ours |\n|---|---:|---:|---:|\n\
            | claims | 809 | 0.695 | 0.731 |\n| papers | 500 | | 0.990 |\n| mean | | | 0.860 |\n\n\
            ## Fixed answers: top-1\n\n| set | questions | ours |\n|---|---:|---:|\n\
            | answers | 499 | 0.950 |\n\n\
            ## Confidence: AUROC\n\n| set | questions | ours |\n|---|---:|---:|\n\
            | answers | 499 | 0.960 |\n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for text in ["", "[1]", "{}", r#"{"system": "x"}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
