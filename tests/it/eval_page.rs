//! EVAL.md holds what is promised of the quality of answers: whoever commits a page with lower figures has to say so here.

use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../EVAL.md");

const BM25: &str = "BM25 (reference)";
const COSINE: &str = "MiniLM, cosine (reference)";
const RANK_FUSION: &str = "both, rank fusion (reference)";
const OURS: &str = "Frontdesk";

/// Figures of a table by row and column.
type Table = BTreeMap<String, BTreeMap<String, f64>>;

/// The table below a heading, its means left out.
fn table(heading: &str) -> Table {
    let heading = format!("## {heading}\n");
    let (_, section) = PAGE.split_once(&heading).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = section.lines().filter(|line| line.starts_with('|')).map(cells);
    let columns = lines.next().expect("the columns");
    let rows = lines.skip(1).filter(|row| row[0] != "mean").map(|row| {
        let figures = columns.iter().zip(&row).skip(2);
        let figures = figures.filter_map(|(column, figure)| Some((column.clone(), figure.parse().ok()?)));
        (row[0].clone(), figures.collect())
    });
    rows.collect()
}

/// By how much our figure of each row is above the best of these columns.
fn above(table: &Table, columns: &[&str]) -> BTreeMap<String, f64> {
    let above = table.iter().map(|(set, figures)| {
        let others = columns.iter().filter_map(|column| figures.get(*column));
        let best = others.copied().fold(0.0, f64::max);
        (set.clone(), figures[OURS] - best)
    });
    above.collect()
}

#[test]
fn passages_are_found_at_least_as_well_as_by_the_best_of_words_meaning_and_both() {
    let above = above(&table("nDCG@10"), &[BM25, COSINE, RANK_FUSION]);

    assert_eq!(above.len(), 12, "{above:?}");
    assert!(above.values().all(|above| *above >= 0.0), "{above:?}");
    let mean = above.values().sum::<f64>() / above.len() as f64;
    assert!(mean >= 0.01, "{mean}");
}

#[test]
fn weights_of_a_quarter_the_size_lose_less_than_half_a_point() {
    let table = table("nDCG@10");
    let lost = |figures: &BTreeMap<String, f64>| figures[OURS] - figures["Frontdesk, int8"];
    let mean = table.values().map(lost).sum::<f64>() / table.len() as f64;

    assert!(mean < 0.005, "{mean}");
}

#[test]
fn words_of_postgresql_keep_the_quality_of_the_whole() {
    let table = table("nDCG@10");
    let lost = |figures: &BTreeMap<String, f64>| figures[OURS] - figures["Frontdesk on PostgreSQL"];
    let lost: Vec<f64> = table.values().map(lost).collect();

    assert!(lost.iter().all(|lost| *lost < 0.0025), "{lost:?}");
}

#[test]
fn fixed_answers_are_found_at_least_as_well_as_by_a_hybrid_of_both() {
    let above = above(
        &table("Fixed answers: top-1"),
        &[BM25, COSINE, "hybrid (reference)"],
    );

    assert_eq!(above.len(), 4, "{above:?}");
    assert!(above.values().all(|above| *above >= 0.0), "{above:?}");
}

#[test]
fn confidence_tells_questions_with_an_answer_from_those_without() {
    let table = table("Confidence: AUROC");

    assert!(table["clapnq"][OURS] >= 0.9, "{table:?}");
    assert!(table.values().all(|figures| figures[OURS] >= 0.9), "{table:?}");
}
