//! `frontdesk eval`: test sets measured without a server, and reports side by side.

use super::*;

/// Three passages and three questions, of which one has no answer.
fn write_set(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    write(
        "corpus.jsonl",
        "{\"_id\": \"returns\", \"title\": \"Returns\", \"text\": \"Goods may be returned within 30 days.\"}\n\
         {\"_id\": \"oak\", \"title\": \"Oak\", \"text\": \"Hardwax oil suits oak.\"}\n\
         {\"_id\": \"hours\", \"title\": \"Hours\", \"text\": \"The showroom opens at ten.\"}\n",
    );
    write(
        "queries.jsonl",
        "{\"_id\": \"q1\", \"text\": \"When may goods be returned?\"}\n\
         {\"_id\": \"q2\", \"text\": \"Which oil suits oak?\"}\n\
         {\"_id\": \"q3\", \"text\": \"Zebras?\", \"answerable\": false}\n",
    );
    write(
        "qrels.tsv",
        "query-id\tcorpus-id\tscore\nq1\treturns\t1\nq2\toak\t1\n",
    );
}

fn write_faq(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    write(
        "faqs.jsonl",
        "{\"_id\": \"f1\", \"question\": \"Where is the showroom?\", \"answer\": \"In Bonn.\"}\n\
         {\"_id\": \"f2\", \"question\": \"Which oil suits oak?\", \"answer\": \"Hardwax oil.\"}\n",
    );
    write(
        "queries.jsonl",
        "{\"_id\": \"q1\", \"text\": \"where is your showroom\", \"faq_id\": \"f1\"}\n\
         {\"_id\": \"q2\", \"text\": \"zebras\", \"faq_id\": null}\n",
    );
}

#[tokio::test]
async fn all_sets_below_a_folder_are_measured_and_the_report_tells_each_question() {
    let (folder, data) = data_dir();
    let sets = folder.path().join("sets");
    write_set(&sets.join("shop"));
    write_faq(&sets.join("answers"));
    let (sets, report) = (sets.display().to_string(), folder.path().join("report.json"));
    let report = report.display().to_string();

    let table = run_well(&data, &["eval", "run", &sets, "--words-only", "--json", &report]).await;

    let row = |name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in {table}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row("shop")[..4], ["shop", "3", "2", "1.0000"]);
    assert_eq!(row("answers")[..5], ["answers", "2", "1", "1.0000", "1.0000"]);
    let written: Value =
        serde_json::from_str(&std::fs::read_to_string(&report).expect("a report")).expect("JSON");
    assert_eq!(written["system"], "words alone");
    let questions = written["sets"][0]["questions"].as_array().expect("questions");
    assert_eq!(questions.len(), 3);
    assert_eq!(
        (&questions[0]["id"], &questions[0]["found"][0]),
        (&"q1".into(), &"returns".into())
    );
    assert!(!data.exists(), "a measurement leaves nothing in the data folder");

    let compared = run_well(&data, &["eval", "compare", &report, &report]).await;
    assert!(compared.contains("| shop | 2 | 1.000 | 1.000 |"), "{compared}");
}

#[tokio::test]
async fn what_cannot_be_measured_says_why_and_ends_with_the_code_of_its_kind() {
    let (folder, data) = data_dir();
    let set = folder.path().join("shop");
    write_set(&set);
    let (dir, nowhere) = (
        set.display().to_string(),
        folder.path().join("nowhere").display().to_string(),
    );

    let without_model = run(&data, &["eval", "run", &dir]).await;
    assert_eq!(without_model.status.code(), Some(3));
    assert!(
        told(&without_model).contains("--words-only"),
        "{}",
        told(&without_model)
    );
    let missing = run(&data, &["eval", "run", &nowhere, "--words-only"]).await;
    assert_eq!(missing.status.code(), Some(4), "{}", told(&missing));

    std::fs::write(
        set.join("qrels.tsv"),
        "query-id\tcorpus-id\tscore\nq1\treturns\tmuch\n",
    )
    .expect("written");
    let broken = run(&data, &["eval", "run", &dir, "--words-only"]).await;
    assert_eq!(broken.status.code(), Some(1));
    assert!(told(&broken).contains("qrels.tsv, line 2"), "{}", told(&broken));
}
