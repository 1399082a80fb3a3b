//! What a bank of fixed answers promises.

use proptest::prelude::*;

use super::*;

fn text(text: &str, vector: Option<[f32; 2]>) -> FaqText {
    FaqText {
        text: text.to_owned(),
        vector: vector.map(|vector| vector.to_vec()),
    }
}

fn made_of(entries: Vec<FaqTexts>) -> FaqBank {
    FaqBank::new(entries, None)
}

/// Entries of one wording each, without vectors.
fn bank_of(questions: &[&str]) -> FaqBank {
    let entries = questions.iter().map(|question| FaqTexts {
        wordings: vec![text(question, None)],
        whole: None,
    });
    made_of(entries.collect())
}

/// The unit vector at this angle.
fn at(degrees: f32) -> [f32; 2] {
    [degrees.to_radians().cos(), degrees.to_radians().sin()]
}

#[test]
fn small_words_tell_questions_about_one_thing_apart() {
    let bank = bank_of(&["How is it tested?", "Where can I get tested?", "What is a test?"]);

    assert_eq!(bank.rank("where do they test", None, None)[0].entry, 1);
    assert_eq!(bank.rank("how do you test it", None, None)[0].entry, 0);
}

#[test]
fn an_entry_is_told_by_several_of_its_wordings() {
    let wordings = |angles: &[f32]| FaqTexts {
        wordings: angles.iter().map(|angle| text("x", Some(at(*angle)))).collect(),
        whole: None,
    };
    let bank = made_of(vec![wordings(&[10.0, 80.0, 80.0]), wordings(&[11.0, 12.0, 13.0])]);

    assert_eq!(bank.rank("y", Some(&at(0.0)), None)[0].entry, 1);
}

#[test]
fn an_answer_speaks_for_its_entry_and_none_speaks_against_it() {
    let entry = |question: &str, answer: Option<&str>| FaqTexts {
        wordings: vec![text(question, None)],
        whole: answer.map(|answer| text(&format!("{question} {answer}"), None)),
    };
    let bank = made_of(vec![
        entry("Opening times", Some("Monday to Friday from nine.")),
        entry("Prices", Some("From ten francs.")),
        entry("Parking on Monday", None),
    ]);

    assert_eq!(bank.rank("until nine on friday?", None, None)[0].entry, 0);
    assert_eq!(bank.rank("parking", None, None)[0].entry, 2);
}

#[test]
fn a_vector_in_a_language_that_the_model_does_not_read_tells_nothing() {
    let entry = |question: &str, angle: f32| FaqTexts {
        wordings: vec![text(question, Some(at(angle)))],
        whole: None,
    };
    let bank = made_of(vec![
        entry("Сколько стоит доставка?", 90.0),
        entry("Как оплатить заказ?", 0.0),
    ]);
    let ask = |read| bank.rank("Сколько идёт доставка?", Some(&at(0.0)), read)[0].entry;

    assert_eq!(ask(Some(&[Language::English][..])), 0);
    assert_eq!(ask(None), 1);
}

#[test]
fn the_same_question_is_surer_than_another() {
    let bank = made_of(vec![FaqTexts {
        wordings: vec![text("Where is my parcel?", Some(at(0.0)))],
        whole: None,
    }]);
    let sure = |question: &str, angle| bank.rank(question, Some(&at(angle)), None)[0].confidence;

    assert!(sure("Where is my parcel?", 0.0) > 0.95);
    assert!(sure("Who won the world cup?", 85.0) < 0.05);
    let words = bank_of(&["Where is my parcel?"]);
    let by_words = |question| words.rank(question, None, None)[0].confidence;
    assert!(by_words("where is my parcel") > 0.8 && by_words("gift cards") < 0.1);
}

#[test]
fn entries_without_a_wording_are_never_asked_for() {
    let bank = made_of(vec![FaqTexts {
        wordings: Vec::new(),
        whole: Some(text("parcel", None)),
    }]);

    assert_eq!(bank.rank("parcel", None, None), []);
    assert_eq!(made_of(Vec::new()).rank("parcel", Some(&at(0.0)), None), []);
}

#[test]
fn a_bank_of_one_line_knows_a_question_of_another_kind_from_a_model_whose_cosines_are_all_high() {
    // 40 degrees apart: a cosine of 0.77.
    let entry = || FaqTexts {
        wordings: vec![text("Where is my parcel?", Some(at(0.0)))],
        whole: None,
    };
    let sure = |unrelated| {
        let bank = FaqBank::new(vec![entry()], unrelated);
        bank.rank("Who won the world cup?", Some(&at(40.0)), None)[0].confidence
    };

    assert!(sure(Some(0.75)) < 0.05, "{}", sure(Some(0.75)));
    assert!(sure(None) > 0.5);
}

proptest! {
    #[test]
    fn every_entry_has_a_place_and_a_confidence(
        wordings in prop::collection::vec((any::<String>(), 0.0_f32..360.0), 0..12),
        question in any::<String>(),
        angle in 0.0_f32..360.0,
    ) {
        let entries = wordings.iter().map(|(wording, angle)| FaqTexts {
            wordings: vec![text(wording, Some(at(*angle)))],
            whole: Some(text(wording, None)),
        });
        let bank = made_of(entries.collect());

        let ranked = bank.rank(&question, Some(&at(angle)), None);

        prop_assert_eq!(ranked.len(), wordings.len());
        prop_assert!(ranked.windows(2).all(|pair| pair[0].score >= pair[1].score));
        prop_assert!(ranked.iter().all(|found| (0.0..=1.0).contains(&found.confidence) && found.score.is_finite()));
    }
}
