mod drawing;
mod mutated;
mod whole;

use lopdf::{Dictionary, Object, Stream, dictionary};

use super::*;
use crate::{BlockKind, Format};

/// A document whose pages have these content streams, with Helvetica as `F1`, its bold as `F2`, Courier as
/// `F3`.
fn pdf_of(pages: &[&str]) -> Vec<u8> {
    save(document_of(pages))
}

fn document_of(pages: &[&str]) -> Document {
    let mut document = Document::with_version("1.5");
    let tree = document.new_object_id();
    let mut fonts = Dictionary::new();
    for (name, base) in [("F1", "Helvetica"), ("F2", "Helvetica-Bold"), ("F3", "Courier")] {
        let font = document.add_object(dictionary! {
            "Type" => "Font", "Subtype" => "Type1", "BaseFont" => base, "Encoding" => "WinAnsiEncoding",
        });
        fonts.set(name, font);
    }
    let kids: Vec<Object> = pages
        .iter()
        .map(|content| {
            let stream = document.add_object(Stream::new(Dictionary::new(), content.as_bytes().to_vec()));
            let page = dictionary! {
                "Type" => "Page", "Parent" => tree, "Contents" => stream,
                "Resources" => dictionary! { "Font" => fonts.clone() },
                "MediaBox" => vec![0.into(), 0.into(), 595.into(), 842.into()],
            };
            document.add_object(page).into()
        })
        .collect();
    let count = pages.len() as i64;
    document.objects.insert(
        tree,
        dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count }.into(),
    );
    let catalog = document.add_object(dictionary! { "Type" => "Catalog", "Pages" => tree });
    document.trailer.set("Root", catalog);
    document
}

/// The dictionary of the first page.
fn first_page(document: &mut Document) -> &mut Dictionary {
    let page = document.page_iter().next().expect("a page");
    document
        .get_object_mut(page)
        .and_then(Object::as_dict_mut)
        .expect("the page")
}

/// The dictionary at the root of all.
fn catalog(document: &mut Document) -> &mut Dictionary {
    document.catalog_mut().expect("the catalog")
}

fn save(mut document: Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    document.save_to(&mut bytes).expect("written to memory");
    bytes
}

fn read(bytes: &[u8]) -> Result<ExtractedDocument, &'static str> {
    extract(bytes, &Hints::default(), &Limits::default()).map_err(|error| error.code())
}

fn text_of(bytes: &[u8]) -> Result<String, &'static str> {
    read(bytes).map(|document| document.text)
}

/// One line of text at a place.
fn line(font: &str, size: u32, x: u32, y: u32, text: &str) -> String {
    format!("BT /{font} {size} Tf {x} {y} Td ({text}) Tj ET\n")
}

#[test]
fn lines_become_paragraphs_and_headings_with_their_pages() {
    let first = [
        line("F1", 18, 72, 780, "Care of wood"),
        line("F1", 11, 72, 750, "Wash it with water twice a year and let it"),
        line("F1", 11, 72, 737, "dry for two days before you oil it again."),
        line("F2", 11, 72, 705, "Oils"),
        line(
            "F1",
            11,
            72,
            690,
            "Use hard wax oil on oak, nothing on teak at all.",
        ),
    ];
    let second = line("F1", 11, 72, 780, "Page two goes on here.");

    let document = read(&pdf_of(&[&first.concat(), &second])).expect("text");

    assert_eq!(
        document.text,
        "Care of wood\n\nWash it with water twice a year and let it dry for two days before you oil it again.\n\n\
         Oils\n\nUse hard wax oil on oak, nothing on teak at all.\n\nPage two goes on here."
    );
    assert_eq!(document.blocks[2].kind, BlockKind::Heading { level: 2 });
    assert_eq!(document.blocks[3].heading_path, ["Care of wood", "Oils"]);
    let pages: Vec<Option<u32>> = document.blocks.iter().map(|block| block.page).collect();
    assert_eq!(pages, [Some(1), Some(1), Some(1), Some(1), Some(2)]);
    assert_eq!(
        (document.page_count, document.title.as_deref()),
        (Some(2), Some("Care of wood"))
    );
}

#[test]
fn words_parted_at_a_line_end_are_put_together_and_compounds_keep_their_hyphen() {
    let content = [
        line("F1", 11, 72, 750, "The third party pays. It is guar-"),
        line("F1", 11, 72, 737, "anteed by our partners, and third-"),
        line("F1", 11, 72, 724, "party cover is included in every case."),
    ];

    let text = text_of(&pdf_of(&[&content.concat()])).expect("text");

    assert_eq!(
        text,
        "The third party pays. It is guaranteed by our partners, and third-party cover is included in every case."
    );
}

#[test]
fn cells_beside_each_other_are_rows_with_their_header() {
    let content: String = [
        ("F2", 700, "Piece", "Price", "Stock"),
        ("F1", 685, "Chair", "285", "yes"),
        ("F1", 670, "Bench", "540", "no"),
    ]
    .iter()
    .map(|(font, y, a, b, c)| {
        [
            line(font, 10, 72, *y, a),
            line(font, 10, 200, *y, b),
            line(font, 10, 300, *y, c),
        ]
        .concat()
    })
    .collect();

    let document = read(&pdf_of(&[&content])).expect("text");

    assert_eq!(
        document.text,
        "Piece | Price | Stock\nChair | 285 | yes\nBench | 540 | no"
    );
    let header = Some("Piece | Price | Stock".to_owned());
    assert_eq!(document.blocks[2].kind, BlockKind::TableRow { header });
}

#[test]
fn lists_and_listings_keep_their_lines() {
    let content = [
        line(
            "F1",
            11,
            72,
            750,
            "\\225 first of the things that are needed here",
        ),
        line("F1", 11, 72, 737, "\\225 second"),
        line("F3", 10, 72, 710, "make all"),
        line("F3", 10, 84, 698, "run it"),
    ];

    let document = read(&pdf_of(&[&content.concat()])).expect("text");

    assert_eq!(
        document.text,
        "• first of the things that are needed here\n• second\n\nmake all\n  run it"
    );
    assert_eq!(document.blocks[2].kind, BlockKind::Code);
}

#[test]
fn gaps_between_shown_strings_are_spaces_only_where_they_are_wide() {
    let content = "BT /F1 12 Tf 72 700 Td [(Hel) -20 (lo) -400 (wor) 10 (ld)] TJ 0 -14 Td (next) ' ET";

    assert_eq!(text_of(&pdf_of(&[content])), Ok("Hello world next".to_owned()));
}

#[test]
fn page_headers_and_numbers_are_left_out() {
    let pages: Vec<String> = (1..=5)
        .map(|number| {
            [
                line("F1", 9, 72, 820, "Acme handbook"),
                line(
                    "F1",
                    11,
                    72,
                    700,
                    &format!("Content {}.", ["one", "two", "three", "four", "five"][number - 1]),
                ),
                line("F1", 9, 280, 30, &format!("Page {number} of 5")),
            ]
            .concat()
        })
        .collect();
    let pages: Vec<&str> = pages.iter().map(String::as_str).collect();

    let text = text_of(&pdf_of(&pages)).expect("text");

    assert_eq!(
        text,
        "Acme handbook\n\nContent one.\n\nContent two.\n\nContent three.\n\nContent four.\n\nContent five."
    );
}

#[test]
fn text_that_nobody_sees_is_left_out() {
    let content = [
        line("F1", 11, 72, 700, "seen"),
        "BT 3 Tr /F1 11 Tf 72 650 Td (invisible ink) Tj ET 0 Tr\n".to_owned(),
        line("F1", 11, 72, 2_000, "off the page"),
        "BT /F1 0.2 Tf 72 600 Td (too small) Tj ET\n".to_owned(),
    ];

    assert_eq!(text_of(&pdf_of(&[&content.concat()])), Ok("seen".to_owned()));
}

#[test]
fn text_under_a_scanned_page_is_its_text() {
    let content = "BI /W 1 /H 1 /BPC 8 /CS /G ID x EI\nBT 3 Tr /F1 11 Tf 72 650 Td (recognised) Tj ET";

    assert_eq!(text_of(&pdf_of(&[content])), Ok("recognised".to_owned()));
}

#[test]
fn forms_are_drawn_and_cycles_and_multiplication_end() {
    let mut document = document_of(&["/X Do"]);
    let page = document.page_iter().next().expect("a page");
    let ids: Vec<lopdf::ObjectId> = (0..12).map(|_| document.new_object_id()).collect();
    for (at, id) in ids.iter().enumerate() {
        // Each form draws the next one ten times, and the last one the first.
        let next = ids[(at + 1) % ids.len()];
        let resources = dictionary! { "XObject" => dictionary! { "Y" => next } };
        let form = dictionary! { "Type" => "XObject", "Subtype" => "Form", "Resources" => resources };
        document
            .objects
            .insert(*id, Stream::new(form, b"/Y Do ".repeat(10)).into());
    }
    let said = document.add_object(Stream::new(
        dictionary! { "Type" => "XObject", "Subtype" => "Form" },
        b"BT /F1 11 Tf 72 700 Td (from a form) Tj ET".to_vec(),
    ));
    let resources = document
        .get_object_mut(page)
        .and_then(Object::as_dict_mut)
        .and_then(|page| page.get_mut(b"Resources"))
        .and_then(Object::as_dict_mut)
        .expect("the page has resources");
    resources.set("XObject", dictionary! { "X" => ids[0], "Z" => said });
    let stream = document.add_object(Stream::new(Dictionary::new(), b"/Z Do /X Do".to_vec()));
    let page = document
        .get_object_mut(page)
        .and_then(Object::as_dict_mut)
        .expect("the page");
    page.set("Contents", stream);

    assert_eq!(text_of(&save(document)), Ok("from a form".to_owned()));
}

#[test]
fn a_stream_that_unpacks_to_a_gigabyte_is_refused() {
    let mut document = document_of(&[""]);
    let page = document.page_iter().next().expect("a page");
    let mut stream = Stream::new(Dictionary::new(), vec![b' '; 32 << 20]);
    stream.compress().expect("compressed");
    let id = document.add_object(stream);
    document
        .get_object_mut(page)
        .and_then(Object::as_dict_mut)
        .expect("the page")
        .set("Contents", vec![id.into(); 32]);

    assert_eq!(text_of(&save(document)), Err("too_large"));
}

#[test]
fn ten_thousand_nested_arrays_cost_nothing() {
    let mut bytes = pdf_of(&["BT /F1 11 Tf 72 700 Td (fine) Tj ET"]);
    let nested = format!(
        "\n99 0 obj\n{}{}\nendobj\n",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let at = bytes
        .windows(4)
        .position(|window| window == b"xref")
        .expect("a table");
    bytes.splice(at..at, nested.bytes());
    let mut stream = "[".repeat(10_000);
    stream.push_str("(x) ");
    stream.push_str(&"]".repeat(10_000));
    stream.push_str(" TJ BT /F1 11 Tf 72 700 Td (fine) Tj ET");

    assert_eq!(text_of(&bytes), Ok("fine".to_owned()));
    assert_eq!(text_of(&pdf_of(&[&stream])), Ok("fine".to_owned()));
}

#[test]
fn right_to_left_writing_comes_out_in_the_order_of_reading() {
    let mut document = document_of(&[""]);
    // The letters of the words for "hello" and "to you" as codes A to H.
    let names = ["0645", "0631", "062D", "0628", "0627", "0643"]
        .map(|code| Object::Name(format!("uni{code}").into_bytes()));
    let mut differences = vec![Object::Integer(65)];
    differences.extend(names);
    let font = document.add_object(dictionary! {
        "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Arabic",
        "Encoding" => dictionary! { "Type" => "Encoding", "Differences" => differences },
    });
    // Drawn from left to right, as the eye sees it; the second part of the line is drawn first.
    let content =
        b"BT /F1 12 Tf 1 0 0 1 216 700 Tm (EDCBA) Tj 1 0 0 1 150 700 Tm (AFD \\(2024\\) ) Tj ET".to_vec();
    let stream = document.add_object(Stream::new(Dictionary::new(), content));
    let page = document.page_iter().next().expect("a page");
    let page = document
        .get_object_mut(page)
        .and_then(Object::as_dict_mut)
        .expect("the page");
    page.set("Contents", stream);
    page.set(
        "Resources",
        dictionary! { "Font" => dictionary! { "F1" => font } },
    );

    assert_eq!(text_of(&save(document)), Ok("مرحبا (2024) بكم".to_owned()));
}

#[test]
fn a_hyphen_at_a_line_end_stays_where_the_document_parts_no_words() {
    let lines: String = (0..55)
        .map(|number| {
            line(
                "F1",
                11,
                72,
                780 - number * 13,
                "the words of this page stand whole on lines",
            )
        })
        .collect();
    let last = [
        line("F1", 11, 72, 390, "it has become a free-"),
        line("F1", 11, 72, 377, "market matter for all, third and 3rd-"),
        line("F1", 11, 72, 364, "and-last"),
    ];

    let text = text_of(&pdf_of(&[&lines, &lines, &last.concat()])).expect("text");

    assert!(
        text.ends_with("a free-market matter for all, third and 3rd-and-last"),
        "{text}"
    );
}
