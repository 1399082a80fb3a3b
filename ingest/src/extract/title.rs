//! Titles in the properties of a file: a person's, or what a program wrote because nobody gave one.

/// How titles begin that programs write when nobody gave one.
const EMPTY_TITLES: [&str; 5] = [
    "untitled",
    "microsoft word",
    "powerpoint presentation",
    "document",
    "unknown",
];

/// Titles that programs write, and that may well begin one of a person's.
const WHOLE_EMPTY_TITLES: [&str; 5] = ["presentation", "presentation1", "slide 1", "book1", "workbook"];

/// Whether a person may have given this title: no file name, and nothing that programs write by themselves.
pub(crate) fn is_title(title: &str) -> bool {
    let lower = title.trim().to_lowercase();
    let is_file_name = lower.rsplit_once('.').is_some_and(|(_, end)| {
        (2..=5).contains(&end.len()) && end.chars().all(|c| c.is_ascii_alphanumeric())
    });
    let is_empty = EMPTY_TITLES.iter().any(|empty| lower.starts_with(empty))
        || WHOLE_EMPTY_TITLES.contains(&lower.as_str());
    lower.chars().count() > 2 && !is_file_name && !is_empty
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_write_by_themselves_is_no_title() {
        for title in [
            "PowerPoint Presentation",
            "Presentation",
            "Slide 1",
            "Microsoft Word - terms.doc",
            "terms.docx",
            "Untitled 1",
            "",
        ] {
            assert!(!is_title(title), "{title}");
        }
        for title in ["Presentation of the results", "Terms of delivery", "Slide rules"] {
            assert!(is_title(title), "{title}");
        }
    }
}
