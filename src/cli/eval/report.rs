//! What a run of `frontdesk eval` found: as JSON with every question, and as tables for the eye.

use std::fmt::Write as _;

use retrieval::eval::{Abstention, FaqReport, Latency, Report};
use serde::Serialize;

/// Of one run.
#[derive(Debug, Serialize)]
pub(super) struct RunReport {
    /// What was measured.
    pub system: String,
    /// The number of the rules by which words were read.
    pub analysis: u32,
    pub sets: Vec<SetReport>,
}

/// Of one set of the run.
#[derive(Debug, Serialize)]
pub(super) struct SetReport {
    name: String,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Figures {
    Passages(Report),
    Faq(FaqReport),
}

impl SetReport {
    pub(super) fn of_passages(name: String, report: Report) -> Self {
        Self {
            name,
            figures: Figures::Passages(report),
        }
    }

    pub(super) fn of_faq(name: String, report: FaqReport) -> Self {
        Self {
            name,
            figures: Figures::Faq(report),
        }
    }
}

impl RunReport {
    /// A table for each kind of set that there is.
    pub(super) fn as_text(&self) -> String {
        let width = self.sets.iter().map(|set| set.name.chars().count()).max();
        let width = width.unwrap_or_default().max(self.system.chars().count());
        let mut text = String::new();
        let mut rows = self
            .sets
            .iter()
            .filter_map(|set| set.passages_row(width))
            .peekable();
        if rows.peek().is_some() {
            let heads = [
                "docs",
                "questions",
                "nDCG@10",
                "R@5",
                "R@10",
                "R@100",
                "MRR@10",
                "AUROC",
                "declined",
                "w/o answ.",
                "p50 ms",
                "p95 ms",
            ];
            head(&mut text, &self.system, width, &heads);
            rows.for_each(|row| text += &row);
        }
        let mut rows = self.sets.iter().filter_map(|set| set.faq_row(width)).peekable();
        if rows.peek().is_some() {
            let heads = [
                "entries",
                "questions",
                "top-1",
                "AUROC",
                "best F1",
                "p50 ms",
                "p95 ms",
            ];
            head(&mut text, &self.system, width, &heads);
            rows.for_each(|row| text += &row);
        }
        text
    }
}

impl SetReport {
    fn passages_row(&self, width: usize) -> Option<String> {
        let Figures::Passages(report) = &self.figures else {
            return None;
        };
        let measures = &report.measures;
        let mut row = start(&self.name, width, report.documents, report.judged);
        for share in [
            measures.ndcg_at_10,
            measures.recall_at_5,
            measures.recall_at_10,
            measures.recall_at_100,
            measures.mrr_at_10,
        ] {
            let _ = write!(row, " {share:>9.4}");
        }
        row += &auroc(report.abstention.as_ref());
        row += &share(report.declined);
        row += &share(report.declined_without_answer);
        Some(row + &took(report.latency))
    }

    fn faq_row(&self, width: usize) -> Option<String> {
        let Figures::Faq(report) = &self.figures else {
            return None;
        };
        let mut row = start(&self.name, width, report.entries, report.in_scope);
        let _ = write!(row, " {:>9.4}", report.top_1);
        row += &auroc(report.abstention.as_ref());
        row += &share(report.abstention.as_ref().map(|abstention| abstention.best_f1));
        Some(row + &took(report.latency))
    }
}

fn head(text: &mut String, system: &str, width: usize, heads: &[&str]) {
    if !text.is_empty() {
        text.push('\n');
    }
    let _ = write!(text, "{system:width$}");
    for head in heads {
        let _ = write!(text, " {head:>9}");
    }
    text.push('\n');
}

fn start(name: &str, width: usize, documents: usize, questions: usize) -> String {
    format!("{name:width$} {documents:>9} {questions:>9}")
}

fn auroc(abstention: Option<&Abstention>) -> String {
    share(abstention.map(|abstention| abstention.auroc))
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| format!(" {:>9}", "-"), |share| format!(" {share:>9.4}"))
}

fn took(latency: Latency) -> String {
    format!(" {:>9.1} {:>9.1}\n", latency.p50_ms, latency.p95_ms)
}

#[cfg(test)]
mod tests {
    use retrieval::eval::Measures;

    use super::*;

    fn report() -> RunReport {
        let measures = Measures {
            ndcg_at_10: 0.73071,
            ..Measures::default()
        };
        let passages = Report {
            documents: 5183,
            judged: 809,
            measures,
            abstention: None,
            declined: Some(0.125),
            declined_without_answer: None,
            latency: Latency::default(),
            questions: Vec::new(),
        };
        let faq = FaqReport {
            entries: 100,
            in_scope: 499,
            top_1: 0.95,
            abstention: Abstention::of(&[0.9], &[0.1]),
            latency: Latency::default(),
            questions: Vec::new(),
        };
        RunReport {
            system: "a model".to_owned(),
            analysis: 6,
            sets: vec![
                SetReport::of_passages("claims".to_owned(), passages),
                SetReport::of_faq("answers".to_owned(), faq),
            ],
        }
    }

    #[test]
    fn each_kind_of_set_has_a_table_of_its_own() {
        let text = report().as_text();

        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1][..4], ["claims", "5183", "809", "0.7307"]);
        assert_eq!(
            lines[1][8..11],
            ["-", "0.1250", "-"],
            "no question without an answer"
        );
        assert_eq!(lines[4][..5], ["answers", "100", "499", "0.9500", "1.0000"]);
    }

    #[test]
    fn a_report_is_read_back_by_what_compares_reports() {
        let written = serde_json::to_string(&report()).expect("JSON");

        let read = super::super::compare::read(&written).expect("a report");

        assert!(super::super::compare::tables(&read).contains("| claims | 809 | 0.731 |"));
    }
}
