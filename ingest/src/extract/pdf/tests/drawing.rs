//! What concerns how a page draws its text: turned pages, marks, layers, notes and fonts that explain little.

use super::*;

#[test]
fn a_page_that_is_turned_for_viewing_is_read_upright() {
    let lines: String = (0..3)
        .map(|number| {
            format!(
                "BT /F1 11 Tf 0 1 -1 0 {} 72 Tm (line {number} of a page) Tj ET\n",
                100 + number * 13
            )
        })
        .collect();
    let mut document = document_of(&[&lines]);
    first_page(&mut document).set("Rotate", 90);

    assert_eq!(
        text_of(&save(document)),
        Ok("line 0 of a page line 1 of a page line 2 of a page".to_owned())
    );
}

#[test]
fn what_the_author_says_a_part_reads_goes_before_what_it_draws() {
    let content = "BT /F1 11 Tf 72 700 Td (see ) Tj /Span << /ActualText (office) >> BDC (o\\001ce) Tj EMC ( hours) Tj ET\n\
                   BT /F1 11 Tf 72 650 Td /P << /MCID 1 >> BDC (kept as drawn) Tj EMC ET";

    assert_eq!(
        text_of(&pdf_of(&[content])),
        Ok("see office hours\n\nkept as drawn".to_owned())
    );
}

#[test]
fn layers_that_are_switched_off_are_not_text() {
    let content = "/OC /Draft BDC BT /F1 11 Tf 72 700 Td (hidden) Tj ET EMC /OC /Final BDC BT /F1 11 Tf 72 650 Td (shown) Tj ET EMC";
    let mut document = document_of(&[content]);
    let [draft, last] = [(), ()].map(|()| document.add_object(dictionary! { "Type" => "OCG" }));
    first_page(&mut document)
        .get_mut(b"Resources")
        .and_then(Object::as_dict_mut)
        .expect("resources")
        .set("Properties", dictionary! { "Draft" => draft, "Final" => last });
    catalog(&mut document).set(
        "OCProperties",
        dictionary! { "D" => dictionary! { "OFF" => vec![Object::Reference(draft)] } },
    );

    assert_eq!(text_of(&save(document)), Ok("shown".to_owned()));
}

#[test]
fn filled_in_fields_are_text_and_hidden_ones_are_not() {
    let mut document = document_of(&[&line("F1", 11, 72, 700, "Name:")]);
    let font = first_page(&mut document)
        .get(b"Resources")
        .and_then(Object::as_dict)
        .and_then(|resources| resources.get(b"Font"))
        .expect("fonts")
        .clone();
    let mut field = |said: &str, y: i64, flags: i64| {
        let form = Stream::new(
            dictionary! {
                "Type" => "XObject", "Subtype" => "Form", "Resources" => dictionary! { "Font" => font.clone() },
                "BBox" => vec![0.into(), 0.into(), 100.into(), 20.into()],
            },
            line("F1", 11, 2, 4, said).into_bytes(),
        );
        let form = document.add_object(form);
        Object::from(dictionary! {
            "Subtype" => "Widget", "F" => flags, "AP" => dictionary! { "N" => form },
            "Rect" => vec![108.into(), (y - 4).into(), 208.into(), (y + 16).into()],
        })
    };
    let fields = vec![field("Ada Lovelace", 700, 4), field("secret", 600, 2)];
    first_page(&mut document).set("Annots", fields);

    assert_eq!(text_of(&save(document)), Ok("Name: Ada Lovelace".to_owned()));
}

/// Sets the first font of all pages.
fn with_font(content: &[u8], font: impl FnOnce(&mut Document) -> Dictionary) -> Vec<u8> {
    let mut document = document_of(&[""]);
    let font = font(&mut document);
    let font = document.add_object(font);
    let stream = document.add_object(Stream::new(Dictionary::new(), content.to_vec()));
    let page = first_page(&mut document);
    page.set("Contents", stream);
    page.set(
        "Resources",
        dictionary! { "Font" => dictionary! { "F1" => font } },
    );
    save(document)
}

#[test]
fn a_composite_font_without_a_map_is_read_by_the_characters_of_its_file() {
    // A font file whose only table maps H to glyph 3 and i to glyph 4.
    let mut cmap = vec![0, 0, 0, 1, 0, 3, 0, 1, 0, 0, 0, 12];
    for value in [
        4_u16, 40, 0, 6, 0, 0, 0, 0x48, 0x69, 0xffff, 0, 0x48, 0x69, 0xffff,
    ] {
        cmap.extend(value.to_be_bytes());
    }
    for value in [3_u16.wrapping_sub(0x48), 4_u16.wrapping_sub(0x69), 1, 0, 0, 0] {
        cmap.extend(value.to_be_bytes());
    }
    let mut file = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    file.extend(b"cmap\0\0\0\0\0\0\0\x1c");
    file.extend((cmap.len() as u32).to_be_bytes());
    file.extend(cmap);
    let bytes = with_font(b"BT /F1 11 Tf 72 700 Td <00030004> Tj ET", |document| {
        let file = document.add_object(Stream::new(Dictionary::new(), file));
        let descriptor = document.add_object(dictionary! { "Type" => "FontDescriptor", "FontFile2" => file });
        let descendant = document.add_object(dictionary! {
            "Type" => "Font", "Subtype" => "CIDFontType2", "FontDescriptor" => descriptor, "CIDToGIDMap" => "Identity",
        });
        dictionary! {
            "Type" => "Font", "Subtype" => "Type0", "Encoding" => "Identity-H",
            "DescendantFonts" => vec![Object::Reference(descendant)],
        }
    });

    assert_eq!(text_of(&bytes), Ok("Hi".to_owned()));
}

#[test]
fn a_type_1_font_without_an_encoding_is_read_by_its_own() {
    let program = b"%!PS-AdobeFont-1.0\n/Encoding 256 array\n0 1 255 {1 index exch /.notdef put} for\n\
                    dup 1 /alpha put\ndup 2 /ffi put\nreadonly def\ncurrentfile eexec xyz";
    let bytes = with_font(b"BT /F1 11 Tf 72 700 Td <0102> Tj ET", |document| {
        let file = document.add_object(Stream::new(Dictionary::new(), program.to_vec()));
        let descriptor = document.add_object(dictionary! { "Type" => "FontDescriptor", "FontFile" => file });
        dictionary! { "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "CMMI10", "FontDescriptor" => descriptor }
    });

    assert_eq!(text_of(&bytes), Ok("αffi".to_owned()));
}

#[test]
fn letters_that_the_page_draws_itself_are_as_large_as_they_look() {
    let bytes = with_font(b"BT /F1 1 Tf 0.5 0 0 0.5 72 700 Tm (ab) Tj ET", |_| {
        dictionary! {
            "Type" => "Font", "Subtype" => "Type3", "FirstChar" => 97, "LastChar" => 98,
            "FontMatrix" => vec![1.into(), 0.into(), 0.into(), 1.into(), 0.into(), 0.into()],
            "FontBBox" => vec![0.into(), 0.into(), 20.into(), 20.into()],
            "Widths" => vec![12.into(), 12.into()],
            "Encoding" => dictionary! { "Differences" => vec![97.into(), "a".into(), "b".into()] },
        }
    });

    assert_eq!(text_of(&bytes), Ok("ab".to_owned()));
}

#[test]
fn vowel_signs_stand_behind_their_letters_whichever_way_they_were_drawn() {
    let font = |_: &mut Document| {
        let names = ["uni0628", "uni0627", "uni064B"].map(|name| Object::Name(name.as_bytes().to_vec()));
        let mut differences = vec![Object::Integer(65)];
        differences.extend(names);
        dictionary! {
            "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Arabic", "FirstChar" => 65,
            "Widths" => vec![500.into(), 300.into(), 0.into()],
            "Encoding" => dictionary! { "Differences" => differences },
        }
    };
    // From the left the sign comes before its letter, from the right behind it.
    let from_the_left = with_font(b"BT /F1 10 Tf 72 700 Td (CBA) Tj ET", font);
    let from_the_right = with_font(
        b"BT /F1 10 Tf 1 0 0 1 75 700 Tm (A) Tj 1 0 0 1 72 700 Tm (BC) Tj ET",
        font,
    );

    for bytes in [from_the_left, from_the_right] {
        assert_eq!(text_of(&bytes), Ok("ب\u{627}\u{64b}".to_owned()));
    }
}
