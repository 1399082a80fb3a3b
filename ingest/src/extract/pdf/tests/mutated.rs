//! A document with a bit of everything, changed at random: nothing in it panics, hangs or goes over the limits.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Fonts with maps and files, an outline, a field, a layer, replaced text, a scan: all uncompressed, so that changes
/// reach every part.
fn rich_document() -> Vec<u8> {
    let content = "/OC /L BDC /Span << /ActualText (office) >> BDC BT /F1 11 Tf 72 700 Td (off) Tj ET EMC EMC\n\
                   BT /F4 11 Tf 1 0 0 1 72 650 Tm [<0001> -400 <0002>] TJ ET q 2 0 0 2 0 0 cm /Fm Do Q\n\
                   BT /F5 10 Tf 72 600 Td (\\001\\002) Tj ET BT /F6 1 Tf 72 500 Td (ab) Tj ET";
    let mut document = document_of(&[content, "q 595 0 0 842 0 0 cm /Im Do /Fax Do /Jb Do Q"]);
    let pages: Vec<lopdf::ObjectId> = document.page_iter().collect();
    let map = document.add_object(Stream::new(
        Dictionary::new(),
        b"1 begincodespacerange <0000> <FFFF> endcodespacerange 1 beginbfchar <0001> <0041> endbfchar \
          1 beginbfrange <0002> <0009> <0061> endbfrange 1 begincidrange <0000> <00ff> 1 endcidrange"
            .to_vec(),
    ));
    let cff = [
        &[
            1_u8, 0, 4, 1, 0, 1, 1, 1, 2, b'A', 0, 1, 1, 1, 9, 139, 15, 139, 16, 160, 17, 139, 139,
        ][..],
        &[0, 0, 0, 0, 0, 2, 1, 1, 2, 3, 14, 14],
    ]
    .concat();
    let file = document.add_object(Stream::new(dictionary! { "Subtype" => "Type1C" }, cff));
    let described =
        document.add_object(dictionary! { "Type" => "FontDescriptor", "Flags" => 4, "FontFile3" => file });
    let descendant = document.add_object(dictionary! {
        "Type" => "Font", "Subtype" => "CIDFontType2", "DW" => 500,
        "W" => vec![1.into(), vec![Object::from(400), 600.into()].into(), 3.into(), 9.into(), 500.into()],
    });
    let composite = document.add_object(dictionary! {
        "Type" => "Font", "Subtype" => "Type0", "Encoding" => map, "ToUnicode" => map,
        "DescendantFonts" => vec![Object::Reference(descendant)],
    });
    let own = document.add_object(dictionary! {
        "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Own", "FontDescriptor" => described,
        "Encoding" => dictionary! { "Differences" => vec![1.into(), "alpha".into(), "uni0062".into()] },
    });
    let drawn = document.add_object(dictionary! {
        "Type" => "Font", "Subtype" => "Type3", "FontMatrix" => vec![Object::Real(0.1), 0.into(), 0.into(), Object::Real(0.1), 0.into(), 0.into()],
        "FontBBox" => vec![0.into(), 0.into(), 100.into(), 100.into()], "FirstChar" => 97, "Widths" => vec![5.into(), 5.into()],
        "Encoding" => dictionary! { "Differences" => vec![97.into(), "a".into(), "b".into()] },
    });
    let layer = document.add_object(dictionary! { "Type" => "OCG" });
    let form = document.add_object(Stream::new(
        dictionary! { "Subtype" => "Form", "BBox" => vec![0.into(), 0.into(), 90.into(), 20.into()], "Matrix" => vec![1.into(), 0.into(), 0.into(), 1.into(), 5.into(), 5.into()] },
        line("F1", 9, 2, 2, "in a form").into_bytes(),
    ));
    let image = |document: &mut Document, filter: Option<&str>, params: Dictionary| {
        let mut dict = dictionary! {
            "Subtype" => "Image", "Width" => 8, "Height" => 8, "BitsPerComponent" => 1, "ColorSpace" => "DeviceGray", "DecodeParms" => params,
        };
        if let Some(filter) = filter {
            dict.set("Filter", Object::Name(filter.as_bytes().to_vec()));
        }
        document.add_object(Stream::new(
            dict,
            vec![0x26, 0xa0, 0x40, 0x00, 0x10, 0x01, 0x00, 0x10],
        ))
    };
    let plain = image(&mut document, None, Dictionary::new());
    let fax = image(
        &mut document,
        Some("CCITTFaxDecode"),
        dictionary! { "K" => -1, "Columns" => 8 },
    );
    let jbig2 = image(&mut document, Some("JBIG2Decode"), Dictionary::new());
    for page in &pages {
        let resources = document
            .get_dictionary_mut(*page)
            .and_then(|page| page.get_mut(b"Resources"))
            .and_then(Object::as_dict_mut)
            .expect("resources");
        let fonts = resources
            .get_mut(b"Font")
            .and_then(Object::as_dict_mut)
            .expect("fonts");
        for (name, font) in [("F4", composite), ("F5", own), ("F6", drawn)] {
            fonts.set(name, font);
        }
        resources.set("Properties", dictionary! { "L" => layer });
        resources.set(
            "XObject",
            dictionary! { "Fm" => form, "Im" => plain, "Fax" => fax, "Jb" => jbig2 },
        );
    }
    let field = dictionary! {
        "Subtype" => "Widget", "Rect" => vec![72.into(), 300.into(), 200.into(), 320.into()],
        "AP" => dictionary! { "N" => form },
    };
    first_page(&mut document).set("Annots", vec![field.into()]);
    let entry = document.add_object(dictionary! {
        "Title" => Object::string_literal("office"), "Dest" => vec![pages[0].into(), "Fit".into()],
    });
    let root = catalog(&mut document);
    root.set("Outlines", dictionary! { "First" => entry });
    root.set("Lang", Object::string_literal("en"));
    root.set(
        "OCProperties",
        dictionary! { "D" => dictionary! { "OFF" => Object::Array(Vec::new()) } },
    );
    save(document)
}

#[test]
fn the_document_with_a_bit_of_everything_is_read() {
    let bytes = rich_document();

    let document = read(&bytes).expect("text");

    for part in ["office", "A a", "α", "in a form", "ab"] {
        assert!(document.text.contains(part), "{part} in {}", document.text);
    }
    assert_eq!(document.scanned_pages, [2]);
    let scans = scans(&bytes, &Hints::default(), &Limits::default(), 0).expect("scans");
    assert_eq!((scans.page_count, scans.pages[0].page), (2, 2));
    assert!(!scans.pages[0].images.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn documents_changed_at_random_end_in_text_or_a_reason(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        digits in prop::collection::vec((any::<prop::sample::Index>(), b'0'..=b'9'), 0..8),
    ) {
        let mut bytes = rich_document();
        for (place, byte) in changes {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        // Other numbers make other references, sizes and counts, which is where readers go wrong.
        let numbers: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
        for (place, digit) in digits {
            bytes[numbers[place.index(numbers.len())]] = digit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        let limits = Limits { max_unpacked_bytes: 4 << 20, max_pages: 50, ..Limits::default() };
        let begin = Instant::now();

        let document = extract(&bytes, &Hints::default(), &limits);
        let scans = scans(&bytes, &Hints::default(), &limits, 0);

        prop_assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        if let Ok(document) = document {
            prop_assert!(!document.text.trim().is_empty());
        }
        if let Ok(scans) = scans {
            prop_assert!(scans.pages.len() <= 50);
        }
    }
}
