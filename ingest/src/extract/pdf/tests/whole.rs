//! What concerns the document as a whole: protection, damage, scans, properties, outline.

use super::*;

#[test]
fn titles_that_programs_made_up_are_no_titles() {
    for (title, expected) in [
        ("Product guide 2026", Some("Product guide 2026")),
        ("Microsoft Word - guide", None),
        ("guide_final.docx", None),
        ("", None),
    ] {
        let mut document = document_of(&["BT /F1 11 Tf 72 700 Td (Just a text of one line.) Tj ET"]);
        let info = document.add_object(dictionary! { "Title" => Object::string_literal(title) });
        document.trailer.set("Info", info);

        assert_eq!(
            read(&save(document)).expect("text").title.as_deref(),
            expected,
            "{title}"
        );
    }
}

#[test]
fn a_password_for_opening_refuses_and_one_for_editing_does_not() {
    let lock = |user: &str| {
        let mut document = document_of(&["BT /F1 11 Tf 72 700 Td (locked words) Tj ET"]);
        let id = Object::string_literal("0123456789abcdef");
        document.trailer.set("ID", vec![id.clone(), id]);
        let version = lopdf::EncryptionVersion::V2 {
            document: &document,
            owner_password: "owner",
            user_password: user,
            key_length: 128,
            permissions: lopdf::Permissions::empty(),
        };
        let state = lopdf::EncryptionState::try_from(version).expect("a key");
        document.encrypt(&state).expect("encrypted");
        save(document)
    };

    assert_eq!(text_of(&lock("secret")), Err("password_protected"));
    assert_eq!(text_of(&lock("")), Ok("locked words".to_owned()));
}

#[test]
fn pages_of_pictures_have_no_text_and_look_scanned() {
    let outcome = extract(
        &pdf_of(&["BI /W 1 /H 1 /BPC 8 /CS /G ID x EI"]),
        &Hints::default(),
        &Limits::default(),
    );

    assert_eq!(outcome, Err(ExtractError::NoText { scanned: true }));
    assert_eq!(
        extract(&pdf_of(&[""]), &Hints::default(), &Limits::default()),
        Err(ExtractError::NoText { scanned: false })
    );
}

#[test]
fn more_pages_than_allowed_and_none_are_refused() {
    let limits = Limits {
        max_pages: 2,
        ..Limits::default()
    };
    let three = pdf_of(&["", "", ""]);

    assert_eq!(
        extract(&three, &Hints::default(), &limits).map_err(|error| error.code()),
        Err("too_large")
    );
    assert_eq!(text_of(&pdf_of(&[])), Err("damaged"));
    assert_eq!(text_of(b"%PDF-1.7\nnothing of the kind"), Err("damaged"));
    assert_eq!(Format::detect(b"%PDF-1.7\nnothing", "a.pdf"), Ok(Format::Pdf));
}

fn locked(version: impl FnOnce(&Document) -> lopdf::EncryptionState) -> Vec<u8> {
    let mut document = document_of(&[&line("F1", 11, 72, 700, "locked words")]);
    let id = Object::string_literal("0123456789abcdef");
    document.trailer.set("ID", vec![id.clone(), id]);
    let state = version(&document);
    document.encrypt(&state).expect("encrypted");
    save(document)
}

#[test]
fn every_usual_kind_of_encryption_opens_with_its_password_and_with_no_other() {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use lopdf::encryption::crypt_filters::{Aes128CryptFilter, Aes256CryptFilter, CryptFilter};
    use lopdf::{EncryptionState, EncryptionVersion, Permissions};

    let filters = |filter: Arc<dyn CryptFilter>| BTreeMap::from([(b"StdCF".to_vec(), filter)]);
    let permissions = Permissions::empty();
    let files = [
        locked(|document| {
            EncryptionState::try_from(EncryptionVersion::V1 {
                document,
                owner_password: "owner",
                user_password: "secret",
                permissions,
            })
            .expect("a key")
        }),
        locked(|document| {
            EncryptionState::try_from(EncryptionVersion::V2 {
                document,
                owner_password: "owner",
                user_password: "secret",
                key_length: 128,
                permissions,
            })
            .expect("a key")
        }),
        locked(|document| {
            EncryptionState::try_from(EncryptionVersion::V4 {
                document,
                encrypt_metadata: true,
                crypt_filters: filters(Arc::new(Aes128CryptFilter)),
                stream_filter: b"StdCF".to_vec(),
                string_filter: b"StdCF".to_vec(),
                owner_password: "owner",
                user_password: "secret",
                permissions,
            })
            .expect("a key")
        }),
        locked(|_| {
            EncryptionState::try_from(EncryptionVersion::V5 {
                encrypt_metadata: true,
                crypt_filters: filters(Arc::new(Aes256CryptFilter)),
                file_encryption_key: &[7; 32],
                stream_filter: b"StdCF".to_vec(),
                string_filter: b"StdCF".to_vec(),
                owner_password: "owner",
                user_password: "secret",
                permissions,
            })
            .expect("a key")
        }),
    ];
    for (number, bytes) in files.iter().enumerate() {
        let outcome = |password: Option<&str>| {
            let hints = Hints {
                password: password.map(str::to_owned),
                ..Hints::default()
            };
            extract(bytes, &hints, &Limits::default())
                .map(|document| document.text)
                .map_err(|error| error.code())
        };
        assert_eq!(outcome(Some("secret")), Ok("locked words".to_owned()), "{number}");
        assert_eq!(outcome(Some("owner")), Ok("locked words".to_owned()), "{number}");
        assert_eq!(outcome(Some("other")), Err("password_protected"), "{number}");
        assert_eq!(outcome(None), Err("password_protected"), "{number}");
    }
}

#[test]
fn scanned_pages_among_others_are_named_and_the_others_are_read() {
    let scan = "q 595 0 0 842 0 0 cm BI /W 1 /H 1 /BPC 8 /CS /G ID x EI Q";
    let small = "q 50 0 0 50 0 0 cm BI /W 1 /H 1 /BPC 8 /CS /G ID x EI Q";
    let text = line("F1", 11, 72, 700, "a page that can be read");

    let document = read(&pdf_of(&[scan, &text, small, scan])).expect("text");

    assert_eq!(document.text, "a page that can be read");
    assert_eq!(document.scanned_pages, [1, 4]);
}

#[test]
fn a_file_whose_table_of_objects_is_lost_is_read_by_its_objects() {
    let mut bytes = pdf_of(&[&line("F1", 11, 72, 700, "still there")]);
    let at = bytes
        .windows(9)
        .rposition(|window| window == b"startxref")
        .expect("a table");
    bytes.truncate(at);
    bytes.extend(b"startxref\n999999\n%%EOF");

    assert_eq!(text_of(&bytes), Ok("still there".to_owned()));
}

#[test]
fn pages_are_found_without_their_tree_and_read_once_where_it_repeats_them() {
    let mut lost = document_of(&[&line("F1", 11, 72, 700, "an orphan")]);
    catalog(&mut lost).set("Pages", Object::Null);
    let mut repeated = document_of(&[&line("F1", 11, 72, 700, "once")]);
    let page = repeated.page_iter().next().expect("a page");
    let tree = catalog(&mut repeated)
        .get(b"Pages")
        .and_then(Object::as_reference)
        .expect("the tree");
    repeated
        .get_dictionary_mut(tree)
        .expect("the tree")
        .set("Kids", vec![Object::Reference(page); 50]);

    assert_eq!(text_of(&save(lost)), Ok("an orphan".to_owned()));
    assert_eq!(text_of(&save(repeated)), Ok("once".to_owned()));
}

#[test]
fn language_subject_and_date_are_metadata() {
    let mut document = document_of(&[&line("F1", 11, 72, 700, "Ein Text.")]);
    let info = document.add_object(dictionary! {
        "Subject" => Object::string_literal("How  to care"),
        "CreationDate" => Object::string_literal("D:20260131120000+01'00'"),
    });
    document.trailer.set("Info", info);
    catalog(&mut document).set("Lang", Object::string_literal("de-AT"));

    let metadata = read(&save(document)).expect("text").metadata;

    assert_eq!(metadata.language.as_deref(), Some("de-AT"));
    assert_eq!(metadata.description.as_deref(), Some("How to care"));
    assert_eq!(metadata.published_at.as_deref(), Some("2026-01-31"));
}

#[test]
fn the_outline_tells_headings_and_their_levels() {
    let content = [
        line("F1", 11, 72, 780, "1. Care"),
        line(
            "F1",
            11,
            72,
            766,
            "Wood needs care all year round, and much of it.",
        ),
        line("F1", 11, 72, 752, "Oils"),
        line(
            "F1",
            11,
            72,
            738,
            "Use one that hardens in the air after some days.",
        ),
    ];
    let mut document = document_of(&[&content.concat()]);
    let page = document.page_iter().next().expect("a page");
    let (first, second) = (document.new_object_id(), document.new_object_id());
    let place = |page| vec![Object::Reference(page), "Fit".into()];
    document.objects.insert(
        second,
        dictionary! { "Title" => Object::string_literal("Oils"), "A" => dictionary! { "S" => "GoTo", "D" => Object::string_literal("oils") }, "Next" => first }
            .into(),
    );
    document.objects.insert(
        first,
        dictionary! { "Title" => Object::string_literal("1 Care"), "Dest" => place(page), "First" => second, "Next" => second }.into(),
    );
    let outline = document.add_object(dictionary! { "First" => first });
    let names = dictionary! { "Names" => vec![Object::string_literal("oils"), Object::Array(place(page))] };
    catalog(&mut document).set("Outlines", outline);
    catalog(&mut document).set("Names", dictionary! { "Dests" => names });

    let document = read(&save(document)).expect("text");

    let paths: Vec<String> = document
        .blocks
        .iter()
        .map(|block| block.heading_path.join(" > "))
        .collect();
    assert_eq!(paths, ["1. Care", "1. Care", "1. Care > Oils", "1. Care > Oils"]);
}

#[test]
fn a_word_parted_over_pages_is_one_word_on_the_first() {
    let first = line("F1", 11, 72, 60, "This is guar-");
    let second = [
        line("F1", 11, 72, 780, "anteed for years, and"),
        line("F1", 11, 72, 767, "guaranteed to all."),
    ];

    let document = read(&pdf_of(&[&first, &second.concat()])).expect("text");

    assert_eq!(
        document.text,
        "This is guaranteed\n\nfor years, and guaranteed to all."
    );
}
