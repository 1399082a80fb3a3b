use super::*;

fn read(source: &str) -> ExtractedDocument {
    extract(source.as_bytes(), &Limits::default()).expect("it has text")
}

#[test]
fn paragraphs_headings_lists_and_tables_are_read() {
    let document = read(concat!(
        r"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial Cyr;}}",
        r"{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 heading 1;}}{\info{\title Terms}{\author X}}",
        r"\pard\s1 Returns\par\pard Within \b 30\b0  days, f\'fcr 5 \u8364 ?.\par",
        r"{\f1\'e4\'e0}\par",
        r"\pard\ls1{\listtext 1.\tab}First\par{\listtext 2.\tab}Second\par",
        r"\trowd\cellx1\cellx2\pard\intbl Day\cell Hours\cell\row\pard\intbl Monday\cell 9 to 5\cell\row",
        r"\pard End\par}"
    ));

    assert_eq!(
        document.text,
        "Returns\n\nWithin 30 days, für 5 €.\n\nда\n\n1. First\n2. Second\n\nDay | Hours\nMonday | 9 to 5\n\nEnd"
    );
    assert_eq!(document.blocks[0].kind, BlockKind::Heading { level: 1 });
}

#[test]
fn what_is_not_shown_is_not_text() {
    let document = read(
        r"{\rtf1 Seen{\v hidden}{\*\unknown secret}{\pict 0102}{\header page}{\field{\*\fldinst HYPERLINK x}{\fldrslt link}}\par}",
    );

    assert_eq!(document.text, "Seenlink");
}

#[test]
fn deep_groups_are_refused_and_cut_files_give_what_they_have() {
    let deep = format!("{{\\rtf1 {}", "{".repeat(100_000));

    assert_eq!(
        extract(deep.as_bytes(), &Limits::default()).map_err(|error| error.code()),
        Err("too_large")
    );
    assert_eq!(read(r"{\rtf1 cut {\b of").text, "cut of");
    assert_eq!(read(r"{\rtf1 a\bin9999999999 b\'").text, "a");
}
