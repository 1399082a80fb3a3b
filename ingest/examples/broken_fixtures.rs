//! Writes `fixtures/broken`: small files that hurt a careless reader, each with the reason it must be
//! refused for. `cargo run -p ingest --example broken_fixtures -- fixtures/broken`

use std::io::{Cursor, Write};
use std::path::Path;

use lopdf::{
    Dictionary, Document, EncryptionState, EncryptionVersion, Object, Permissions, Stream, dictionary,
};
use zip::write::{SimpleFileOptions, ZipWriter};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let folder = std::env::args().nth(1).ok_or("name the folder to write to")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    for (name, bytes) in files()? {
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

fn files() -> Outcome<Vec<(&'static str, Vec<u8>)>> {
    let words = "BT /F1 11 Tf 72 700 Td (Goods may be returned within thirty days.) Tj ET";
    let damaged = {
        let mut whole = save(pdf(words))?;
        whole.truncate(whole.len() / 3);
        whole
    };
    let (russian, _, _) =
        encoding_rs::WINDOWS_1251.encode("Возврат товара возможен в течение тридцати дней после покупки.");
    let external = r#"<!DOCTYPE w:document [<!ENTITY file SYSTEM "file:///etc/passwd">]>
        <w:document xmlns:w="w"><w:body><w:p><w:r><w:t>&file;</w:t></w:r></w:p></w:body></w:document>"#;
    Ok(vec![
        ("empty.txt", Vec::new()),
        (
            "picture-named-text.txt",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0".to_vec(),
        ),
        ("other-charset.txt", russian.into_owned()),
        (
            "scanned.pdf",
            save(pdf("q 595 0 0 842 0 0 cm BI /W 1 /H 1 /BPC 8 /CS /G ID x EI Q"))?,
        ),
        ("locked.pdf", locked(pdf(words), "secret")?),
        ("editing-restricted.pdf", locked(pdf(words), "")?),
        ("damaged.pdf", damaged),
        ("nested-arrays.pdf", nested_arrays(words)?),
        ("page-tree-cycle.pdf", page_tree_cycle(words)?),
        ("outline-cycle.pdf", outline_cycle(words)?),
        ("wrong-table.pdf", wrong_table(words)?),
        ("absurd-counts.pdf", absurd_counts(words)?),
        ("form-cycle.pdf", form_cycle(words)?),
        ("image-bomb.pdf", image_bomb()?),
        ("font-of-all-codes.pdf", font_of_all_codes()?),
        ("stream-bomb.pdf", stream_bomb()?),
        (
            "zip-bomb.docx",
            docx(format!("<w:document>{}</w:document>", " ".repeat(48 << 20)).as_bytes())?,
        ),
        ("external-entity.docx", docx(external.as_bytes())?),
        (
            "deep-elements.html",
            format!("<!doctype html>{}bottom", "<div>".repeat(20_000)).into_bytes(),
        ),
        ("slide-bomb.pptx", presentation(&blank(48 << 20))?),
        ("cut.pptx", cut_in_half(presentation("<p:sld/>")?)),
        ("slides-in-a-circle.pptx", circular_slides()?),
        ("locked.pptx", compound_file("/EncryptedPackage")?),
        ("claims-a-million-rows.xlsx", workbook(HUGE_SHEET)?),
        ("sheet-bomb.xlsx", workbook(&blank(48 << 20))?),
        ("hidden-sheet.xlsx", hidden_sheet()?),
        ("old.doc", compound_file("/WordDocument")?),
        (
            "repeated-cells.ods",
            open_document("spreadsheet", REPEATED_CELLS)?,
        ),
        ("locked.odt", locked_odt()?),
        ("styles-in-a-circle.odt", circular_styles()?),
        (
            "deep-groups.rtf",
            format!("{{\\rtf1 {}", "{".repeat(20_000)).into_bytes(),
        ),
        ("no-contents.epub", zip(&[("mimetype", b"application/epub+zip")])?),
        ("locked.epub", locked_epub()?),
        (
            "deep-values.json",
            format!("{{\"a\": {}{}}}", "[".repeat(20_000), "]".repeat(20_000)).into_bytes(),
        ),
        ("mails-in-mails.eml", nested_mails(600).into_bytes()),
        ("cut.msg", cut_in_half(compound_file("/__properties_version1.0")?)),
        (
            "names-upwards.zip",
            zip(&[(
                "../../etc/../terms.txt",
                b"Goods may be returned within thirty days.",
            )])?,
        ),
        ("archives-in-archives.zip", nested_archives(5)?),
        ("bomb-in-archive.zip", zip(&[("b.txt", &[b' '; 48 << 20])])?),
        ("claims-many-entries.zip", many_entries()?),
        (
            "recording.wav",
            b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x44\xac\0\0".to_vec(),
        ),
    ])
}

/// White space that packs a thousandfold.
fn blank(bytes: usize) -> String {
    format!("<x>{}</x>", " ".repeat(bytes))
}

fn cut_in_half(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() / 2);
    bytes
}

fn zip(members: &[(&str, &[u8])]) -> Outcome<Vec<u8>> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer.start_file(*name, SimpleFileOptions::default())?;
        writer.write_all(content)?;
    }
    Ok(writer.finish()?.into_inner())
}

const SLIDE_TABLE: &[u8] =
    br#"<p:presentation xmlns:p="p" xmlns:r="r"><p:sldIdLst><p:sldId r:id="a"/></p:sldIdLst></p:presentation>"#;
const SLIDE_RELATIONSHIPS: &[u8] =
    br#"<Relationships><Relationship Id="a" Type="x/slide" Target="slides/1.xml"/></Relationships>"#;

fn presentation(slide: &str) -> Outcome<Vec<u8>> {
    zip(&[
        ("ppt/presentation.xml", SLIDE_TABLE),
        ("ppt/_rels/presentation.xml.rels", SLIDE_RELATIONSHIPS),
        ("ppt/slides/1.xml", slide.as_bytes()),
    ])
}

/// The slide names itself as its notes, as its chart and as its diagram.
fn circular_slides() -> Outcome<Vec<u8>> {
    zip(&[
        ("ppt/presentation.xml", SLIDE_TABLE),
        ("ppt/_rels/presentation.xml.rels", SLIDE_RELATIONSHIPS),
        (
            "ppt/slides/1.xml",
            br#"<p:sld xmlns:p="p" xmlns:a="a"><p:sp><a:p><a:r><a:t>Goods may be returned.</a:t></a:r></a:p></p:sp></p:sld>"#,
        ),
        (
            "ppt/slides/_rels/1.xml.rels",
            br#"<Relationships><Relationship Id="a" Type="x/notesSlide" Target="1.xml"/><Relationship Id="b" Type="x/chart" Target="1.xml"/>
                <Relationship Id="c" Type="x/diagramData" Target="../slides/1.xml"/></Relationships>"#,
        ),
    ])
}

const HUGE_SHEET: &str = r#"<worksheet><dimension ref="A1:XFD1048576"/><sheetData>
    <row r="1"><c r="A1" t="inlineStr"><is><t>Goods may be returned.</t></is></c></row>
    <row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData><mergeCells><mergeCell ref="A1:XFD1048576"/></mergeCells></worksheet>"#;

fn workbook(sheet: &str) -> Outcome<Vec<u8>> {
    workbook_of(
        br#"<workbook xmlns:r="r"><sheets><sheet name="Rules" r:id="a"/></sheets></workbook>"#,
        sheet,
    )
}

fn workbook_of(table: &[u8], sheet: &str) -> Outcome<Vec<u8>> {
    zip(&[
        ("xl/workbook.xml", table),
        (
            "xl/_rels/workbook.xml.rels",
            br#"<Relationships><Relationship Id="a" Type="x/worksheet" Target="1.xml"/></Relationships>"#,
        ),
        ("xl/1.xml", sheet.as_bytes()),
    ])
}

/// Its only sheet is hidden, as internal calculations are.
fn hidden_sheet() -> Outcome<Vec<u8>> {
    workbook_of(
        br#"<workbook xmlns:r="r"><sheets><sheet name="Costs" state="veryHidden" r:id="a"/></sheets></workbook>"#,
        HUGE_SHEET,
    )
}

fn open_document(kind: &str, body: &str) -> Outcome<Vec<u8>> {
    let content = format!("<content>{body}</content>");
    zip(&[
        (
            "mimetype",
            format!("application/vnd.oasis.opendocument.{kind}").as_bytes(),
        ),
        ("content.xml", content.as_bytes()),
    ])
}

/// One cell that stands for all of the largest sheet there can be.
const REPEATED_CELLS: &str = r#"<body><table name="Rules"><table-row number-rows-repeated="1048576">
    <table-cell number-columns-repeated="16384"><p>x</p></table-cell></table-row></table></body>"#;

fn locked_odt() -> Outcome<Vec<u8>> {
    zip(&[
        ("mimetype", b"application/vnd.oasis.opendocument.text"),
        (
            "META-INF/manifest.xml",
            b"<manifest><file-entry><encryption-data/></file-entry></manifest>",
        ),
        ("content.xml", b"\x8f\x02\xfe\x41\x90"),
    ])
}

fn circular_styles() -> Outcome<Vec<u8>> {
    open_document(
        "text",
        r#"<automatic-styles><style family="paragraph" name="A" parent-style-name="B"/><style family="paragraph" name="B" parent-style-name="A"/></automatic-styles>
           <body><p style-name="A">Goods may be returned.</p></body>"#,
    )
}

fn locked_epub() -> Outcome<Vec<u8>> {
    zip(&[
        ("mimetype", b"application/epub+zip"),
        (
            "META-INF/encryption.xml",
            br#"<encryption><EncryptedData><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/></EncryptedData></encryption>"#,
        ),
    ])
}

fn nested_mails(count: usize) -> String {
    let head = "From: a@example.com\r\nMIME-Version: 1.0\r\nMessage-ID: <1@example.com>\r\n";
    let nesting = "Content-Type: message/rfc822\r\n\r\n";
    format!("{head}{}", nesting.repeat(count))
}

fn nested_archives(depth: usize) -> Outcome<Vec<u8>> {
    let mut inner = zip(&[("terms.txt", b"Goods may be returned.")])?;
    for _ in 1..depth {
        inner = zip(&[("inner.zip", &inner)])?;
    }
    Ok(inner)
}

/// One entry, and an end that claims sixty thousand.
fn many_entries() -> Outcome<Vec<u8>> {
    let mut bytes = zip(&[("terms.txt", b"Goods may be returned.")])?;
    let counts = bytes.len() - 22 + 8;
    bytes[counts..counts + 4].copy_from_slice(&[0x60, 0xea, 0x60, 0xea]);
    Ok(bytes)
}

/// A container of old Office with one stream.
fn compound_file(stream: &str) -> Outcome<Vec<u8>> {
    let mut file = cfb::CompoundFile::create(Cursor::new(Vec::new()))?;
    file.create_stream(stream)?.write_all(&[7; 6_000])?;
    file.flush()?;
    Ok(file.into_inner().into_inner())
}

fn pdf(content: &str) -> Document {
    let mut document = Document::with_version("1.5");
    let tree = document.new_object_id();
    let font = document.add_object(dictionary! {
        "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Helvetica", "Encoding" => "WinAnsiEncoding",
    });
    let stream = document.add_object(Stream::new(Dictionary::new(), content.as_bytes().to_vec()));
    let page = document.add_object(dictionary! {
        "Type" => "Page", "Parent" => tree, "Contents" => stream,
        "Resources" => dictionary! { "Font" => dictionary! { "F1" => font } },
        "MediaBox" => vec![0.into(), 0.into(), 595.into(), 842.into()],
    });
    let pages = dictionary! { "Type" => "Pages", "Kids" => vec![page.into()], "Count" => 1 };
    document.objects.insert(tree, pages.into());
    let catalog = document.add_object(dictionary! { "Type" => "Catalog", "Pages" => tree });
    document.trailer.set("Root", catalog);
    document
}

fn save(mut document: Document) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    document.save_to(&mut bytes)?;
    Ok(bytes)
}

fn locked(mut document: Document, user_password: &str) -> Outcome<Vec<u8>> {
    let id = Object::string_literal("0123456789abcdef");
    document.trailer.set("ID", vec![id.clone(), id]);
    let version = EncryptionVersion::V2 {
        document: &document,
        owner_password: "owner",
        user_password,
        key_length: 128,
        permissions: Permissions::empty(),
    };
    let state = EncryptionState::try_from(version)?;
    document.encrypt(&state)?;
    save(document)
}

fn nested_arrays(content: &str) -> Outcome<Vec<u8>> {
    let mut bytes = save(pdf(content))?;
    let nested = format!(
        "\n99 0 obj\n{}{}\nendobj\n",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let at = bytes
        .windows(4)
        .position(|window| window == b"xref")
        .ok_or("no table")?;
    bytes.splice(at..at, nested.bytes());
    Ok(bytes)
}

/// A gigabyte, packed twice, so that the file stays small.
fn stream_bomb() -> Outcome<Vec<u8>> {
    let mut document = pdf("");
    let mut inner = Stream::new(Dictionary::new(), vec![b' '; 1 << 30]);
    inner.compress()?;
    let mut outer = Stream::new(Dictionary::new(), inner.content);
    outer.compress()?;
    outer
        .dict
        .set("Filter", vec!["FlateDecode".into(), "FlateDecode".into()]);
    let bomb = document.add_object(outer);
    let page = document.page_iter().next().ok_or("no page")?;
    document
        .get_object_mut(page)?
        .as_dict_mut()?
        .set("Contents", bomb);
    save(document)
}

fn docx(body: &[u8]) -> Outcome<Vec<u8>> {
    zip(&[("word/document.xml", body)])
}

/// The tree holds itself, thirty times.
fn page_tree_cycle(content: &str) -> Outcome<Vec<u8>> {
    let mut document = pdf(content);
    let tree = document.catalog()?.get(b"Pages")?.as_reference()?;
    let page = document.page_iter().next().ok_or("no page")?;
    let mut kids = vec![Object::Reference(tree); 30];
    kids.insert(0, page.into());
    document.get_dictionary_mut(tree)?.set("Kids", kids);
    document.get_dictionary_mut(tree)?.set("Parent", tree);
    save(document)
}

fn outline_cycle(content: &str) -> Outcome<Vec<u8>> {
    let mut document = pdf(content);
    let page = document.page_iter().next().ok_or("no page")?;
    let entry = document.new_object_id();
    document.objects.insert(
        entry,
        dictionary! {
            "Title" => Object::string_literal("Round and round"), "Next" => entry, "First" => entry,
            "Dest" => vec![page.into(), "Fit".into()],
        }
        .into(),
    );
    let names = document.new_object_id();
    document.objects.insert(
        names,
        dictionary! { "Kids" => vec![Object::Reference(names); 30] }.into(),
    );
    let catalog = document.catalog_mut()?;
    catalog.set("Outlines", dictionary! { "First" => entry });
    catalog.set("Names", dictionary! { "Dests" => names });
    save(document)
}

/// Every place in the table of objects is wrong.
fn wrong_table(content: &str) -> Outcome<Vec<u8>> {
    let bytes = save(pdf(content))?;
    let header = b"%PDF-1.5\n% a line that moves everything behind it\n";
    let body = bytes.get(9..).ok_or("no header")?;
    Ok([header.as_slice(), body].concat())
}

fn absurd_counts(content: &str) -> Outcome<Vec<u8>> {
    let mut document = pdf(content);
    let tree = document.catalog()?.get(b"Pages")?.as_reference()?;
    document
        .get_dictionary_mut(tree)?
        .set("Count", i64::from(i32::MAX));
    let page = document.page_iter().next().ok_or("no page")?;
    let page = document.get_dictionary_mut(page)?;
    page.set(
        "MediaBox",
        vec![0.into(), 0.into(), 1e38_f32.into(), 1e38_f32.into()],
    );
    page.set("Rotate", i64::MAX);
    save(document)
}

/// Forms that draw each other, ten times each.
fn form_cycle(content: &str) -> Outcome<Vec<u8>> {
    let mut document = pdf("/A Do");
    let (first, second) = (document.new_object_id(), document.new_object_id());
    for (form, other) in [(first, second), (second, first)] {
        let dict = dictionary! {
            "Subtype" => "Form", "Resources" => dictionary! { "XObject" => dictionary! { "A" => other } },
        };
        document
            .objects
            .insert(form, Stream::new(dict, b"/A Do ".repeat(10)).into());
    }
    let text = document.add_object(Stream::new(Dictionary::new(), content.as_bytes().to_vec()));
    let page = document.page_iter().next().ok_or("no page")?;
    let page = document.get_dictionary_mut(page)?;
    let drawn = page.get(b"Contents")?.clone();
    page.set("Contents", vec![text.into(), drawn]);
    page.get_mut(b"Resources")?
        .as_dict_mut()?
        .set("XObject", dictionary! { "A" => first });
    save(document)
}

/// A scan that says to be three gigapixels large.
fn image_bomb() -> Outcome<Vec<u8>> {
    let mut document = pdf("q 595 0 0 842 0 0 cm /Im Do Q");
    let mut image = Stream::new(
        dictionary! {
            "Subtype" => "Image", "Width" => 60_000, "Height" => 60_000, "BitsPerComponent" => 8,
            "ColorSpace" => "DeviceGray",
        },
        vec![255; 64 << 10],
    );
    image.compress()?;
    let image = document.add_object(image);
    let page = document.page_iter().next().ok_or("no page")?;
    document
        .get_dictionary_mut(page)?
        .get_mut(b"Resources")?
        .as_dict_mut()?
        .set("XObject", dictionary! { "Im" => image });
    save(document)
}

/// A map of four billion codes to one letter, with as many widths.
fn font_of_all_codes() -> Outcome<Vec<u8>> {
    let mut document = pdf("BT /F1 11 Tf 72 700 Td <0001> Tj ET");
    let map = "1 begincodespacerange <0000> <FFFF> endcodespacerange 1 beginbfrange <00000000> <FFFFFFFF> <0041> endbfrange";
    let map = document.add_object(Stream::new(Dictionary::new(), map.as_bytes().to_vec()));
    let descendant = document.add_object(dictionary! {
        "Type" => "Font", "Subtype" => "CIDFontType2", "W" => vec![0.into(), i64::MAX.into(), 500.into()],
    });
    let font = document.add_object(dictionary! {
        "Type" => "Font", "Subtype" => "Type0", "Encoding" => "Identity-H", "ToUnicode" => map,
        "DescendantFonts" => vec![descendant.into()],
    });
    let page = document.page_iter().next().ok_or("no page")?;
    document.get_dictionary_mut(page)?.set(
        "Resources",
        dictionary! { "Font" => dictionary! { "F1" => font } },
    );
    save(document)
}
