use std::io::{Cursor, Write};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::USUAL_MAIN_PART;
use crate::{BlockKind, ExtractError, ExtractedDocument, Format, Hints, Limits};

fn extract(bytes: &[u8], limits: &Limits) -> Result<ExtractedDocument, ExtractError> {
    crate::extract(bytes, Format::Docx, &Hints::default(), limits)
}

fn package(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        writer
            .start_file(*name, SimpleFileOptions::default())
            .expect("a new entry");
        writer.write_all(content).expect("written to memory");
    }
    writer.finish().expect("a whole archive").into_inner()
}

fn document_of(body: &str) -> String {
    format!(
        r#"<?xml version="1.0"?><w:document xmlns:w="w" xmlns:m="m" xmlns:mc="mc"><w:body>{body}</w:body></w:document>"#
    )
}

const STYLES: &str = r#"<w:styles xmlns:w="w">
    <w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
    <w:style w:styleId="Klausel"><w:name w:val="Klausel"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
    <w:style w:styleId="Fern"><w:name w:val="far"/><w:basedOn w:val="Klausel"/></w:style>
    <w:style w:styleId="A"><w:name w:val="a"/><w:basedOn w:val="B"/></w:style>
    <w:style w:styleId="B"><w:name w:val="b"/><w:basedOn w:val="A"/></w:style>
    <w:style w:styleId="Code"><w:name w:val="Source Code"/></w:style>
    <w:style w:styleId="TOC1"><w:name w:val="toc 1"/></w:style>
    <w:style w:styleId="Versteckt"><w:name w:val="x"/><w:rPr><w:vanish/></w:rPr></w:style>
</w:styles>"#;

fn styled(style: &str, text: &str) -> String {
    format!(r#"<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"#)
}

fn plain(text: &str) -> String {
    format!("<w:p><w:r><w:t>{text}</w:t></w:r></w:p>")
}

fn read_with(body: &str, more: &[(&str, &[u8])]) -> Result<ExtractedDocument, ExtractError> {
    let document = document_of(body);
    let mut parts: Vec<(&str, &[u8])> = vec![
        (USUAL_MAIN_PART, document.as_bytes()),
        ("word/styles.xml", STYLES.as_bytes()),
    ];
    parts.extend(more);
    extract(&package(&parts), &Limits::default())
}

fn read(body: &str) -> ExtractedDocument {
    read_with(body, &[]).expect("the document has text")
}

#[test]
fn headings_come_from_styles_outline_levels_and_inheritance() {
    let own = r#"<w:p><w:pPr><w:outlineLvl w:val="2"/></w:pPr><w:r><w:t>Own</w:t></w:r></w:p>"#;
    let body = [
        styled("berschrift1", "One"),
        styled("Klausel", "Two"),
        styled("Fern", "Three"),
        own.to_owned(),
        styled("A", "x"),
    ];

    let document = read(&body.concat());

    let kinds: Vec<&BlockKind> = document.blocks.iter().map(|block| &block.kind).collect();
    let heading = |level| BlockKind::Heading { level };
    assert_eq!(
        kinds,
        [
            &heading(1),
            &heading(2),
            &heading(2),
            &heading(3),
            &BlockKind::Paragraph
        ]
    );
    assert_eq!(document.blocks[4].heading_path, ["One", "Three", "Own"]);
}

#[test]
fn tables_become_rows_with_their_header() {
    let row = |cells: [&str; 2]| {
        format!(
            "<w:tr>{}</w:tr>",
            cells.map(|cell| format!("<w:tc>{}</w:tc>", plain(cell))).concat()
        )
    };
    let body = format!(
        "<w:tbl>{}{}</w:tbl>{}",
        row(["Part", "Years"]),
        row(["Motor", "5"]),
        plain("after")
    );

    let document = read(&body);

    assert_eq!(document.text, "Part | Years\nMotor | 5\n\nafter");
    assert_eq!(
        document.blocks[1].kind,
        BlockKind::TableRow {
            header: Some("Part | Years".to_owned())
        }
    );
}

#[test]
fn merged_cells_are_repeated_in_each_row() {
    let cell =
        |properties: &str, text: &str| format!("<w:tc><w:tcPr>{properties}</w:tcPr>{}</w:tc>", plain(text));
    let rows = [
        [
            cell(r#"<w:vMerge w:val="restart"/>"#, "2025"),
            cell("", "3 items"),
        ],
        [cell("<w:vMerge/>", ""), cell("", "4 items")],
    ];
    let body: String = rows
        .iter()
        .map(|row| format!("<w:tr>{}</w:tr>", row.concat()))
        .collect();

    assert_eq!(
        read(&format!("<w:tbl>{body}</w:tbl>")).text,
        "2025 | 3 items\n2025 | 4 items"
    );
}

#[test]
fn deleted_hidden_and_repeated_text_is_left_out() {
    let hidden = "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>";
    let deleted = "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del>";
    let field = "<w:r><w:instrText>INCLUDETEXT /etc/passwd</w:instrText></w:r>";
    let twice = format!(
        "<mc:AlternateContent><mc:Choice>{0}</mc:Choice><mc:Fallback>{0}</mc:Fallback></mc:AlternateContent>",
        "<w:r><w:t> once</w:t></w:r>"
    );
    let body = format!(
        "<w:p><w:r><w:t>seen</w:t><w:tab/></w:r>{hidden}{deleted}{field}{twice}</w:p>{}{}",
        styled("TOC1", "contents 3"),
        styled("Versteckt", "style hidden")
    );

    assert_eq!(read(&body).text, "seen once");
}

#[test]
fn equations_keep_their_structure() {
    let run = |text: &str| format!("<m:r><m:t>{text}</m:t></m:r>");
    let power = format!(
        "<m:sSup><m:e>{}</m:e><m:sup>{}</m:sup></m:sSup>",
        run("r"),
        run("2")
    );
    let fraction = format!(
        "<m:f><m:num>{}</m:num><m:den>{}</m:den></m:f>",
        run("1"),
        run("n")
    );
    let sum = format!(
        r#"<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub>{}</m:sub><m:sup>{}</m:sup><m:e>{fraction}</m:e></m:nary>"#,
        run("n=1"),
        run("∞")
    );
    let body = format!(
        "<w:p><w:r><w:t>Area </w:t></w:r><m:oMath>{}{power}</m:oMath></w:p><w:p><m:oMath>{sum}</m:oMath></w:p>",
        run("A=π")
    );

    assert_eq!(
        read(&body).text,
        "Area $A=\\pi r^{2}$\n\n$\\sum_{n=1}^{\\infty } \\frac{1}{n}$"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn elements_in_any_order_never_panic(parts in proptest::collection::vec(0_usize..26, 0..80)) {
        const NAMES: [&str; 25] = [
            "w:p", "w:r", "w:t", "w:tbl", "w:tr", "w:tc", "w:pPr", "w:rPr", "w:del", "m:oMath", "m:f", "m:num", "m:nary",
            "m:naryPr", "m:chr", "m:d", "m:e", "m:m", "m:mr", "w:txbxContent", "w:tblHeader", "w:numId", "w:ilvl", "w:vanish",
            "m:acc",
        ];
        let mut body = String::new();
        let mut open: Vec<&str> = Vec::new();
        for part in parts {
            match NAMES.get(part) {
                Some(name) => {
                    body.push_str(&format!("<{name} w:val=\"{part}\">text"));
                    open.push(name);
                }
                None => body.extend(open.pop().map(|name| format!("</{name}>"))),
            }
        }
        body.extend(open.iter().rev().map(|name| format!("</{name}>")));
        let outcome = read_with(&body, &[]);
        proptest::prop_assert!(matches!(outcome, Ok(_) | Err(ExtractError::NoText { .. })), "{outcome:?}");
    }
}

#[test]
fn listings_are_one_block_and_notes_follow_their_paragraph() {
    let footnotes = r#"<w:footnotes xmlns:w="w"><w:footnote w:type="separator" w:id="0"><w:p><w:r><w:t>--</w:t></w:r></w:p></w:footnote>
        <w:footnote w:id="2"><w:p><w:r><w:t>Except Sundays.</w:t></w:r></w:p></w:footnote></w:footnotes>"#;
    let body = format!(
        r#"{}{}<w:p><w:r><w:t>Open daily.</w:t><w:footnoteReference w:id="2"/></w:r></w:p>"#,
        styled("Code", "make"),
        styled("Code", "run")
    );

    let document = read_with(&body, &[("word/footnotes.xml", footnotes.as_bytes())]).expect("text");

    assert_eq!(document.text, "make\nrun\n\nOpen daily.\n\nExcept Sundays.");
    assert_eq!(document.blocks[0].kind, BlockKind::Code);
}

#[test]
fn the_title_comes_from_the_properties_when_the_text_has_none() {
    let core = r#"<cp:coreProperties xmlns:cp="c" xmlns:dc="d"><dc:title>Terms</dc:title><dc:creator>x</dc:creator></cp:coreProperties>"#;

    let document = read_with(&plain("text"), &[("docProps/core.xml", core.as_bytes())]).expect("text");

    assert_eq!(document.title.as_deref(), Some("Terms"));
}

#[test]
fn a_zip_bomb_is_refused_by_what_comes_out_of_it() {
    let bomb = format!("{}{}", document_of(""), " ".repeat(64 << 20));
    let packed = package(&[(USUAL_MAIN_PART, bomb.as_bytes())]);
    assert!(packed.len() < 1 << 20);

    assert_eq!(
        extract(&packed, &Limits::default()).map_err(|error| error.code()),
        Err("too_large")
    );
}

#[test]
fn too_many_entries_and_too_deep_elements_are_refused() {
    let names: Vec<String> = (0..5_001).map(|number| format!("word/{number}")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
    let deep = format!("{}x{}", "<w:sdt>".repeat(100_000), "</w:sdt>".repeat(100_000));

    assert_eq!(
        extract(&package(&entries), &Limits::default()).map_err(|error| error.code()),
        Err("too_large")
    );
    assert_eq!(
        read_with(&deep, &[]).map_err(|error| error.code()),
        Err("too_large")
    );
}

#[test]
fn entities_and_outside_parts_are_refused() {
    let document = r#"<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><w:document><w:p><w:r><w:t>&a;</w:t></w:r></w:p></w:document>"#;
    let rels = r#"<Relationships><Relationship Type="http://x/officeDocument" Target="http://127.0.0.1/x.xml" TargetMode="External"/></Relationships>"#;
    let inside = document_of(&plain("inside"));

    let bomb = extract(
        &package(&[(USUAL_MAIN_PART, document.as_bytes())]),
        &Limits::default(),
    );
    let outside = extract(
        &package(&[
            ("_rels/.rels", rels.as_bytes()),
            (USUAL_MAIN_PART, inside.as_bytes()),
        ]),
        &Limits::default(),
    );

    assert_eq!(bomb.map_err(|error| error.code()), Err("damaged"));
    assert_eq!(outside.map(|document| document.text), Ok("inside".to_owned()));
}

#[test]
fn what_the_archive_is_decides_the_type() {
    let docx = package(&[(USUAL_MAIN_PART, document_of("").as_bytes())]);
    let xlsx = package(&[("xl/workbook.xml", b"<workbook/>")]);

    assert_eq!(Format::detect(&docx, "a.zip"), Ok(Format::Docx));
    assert_eq!(Format::detect(&xlsx, "a.docx"), Ok(Format::Xlsx));
    assert_eq!(
        extract(&docx, &Limits::default()),
        Err(ExtractError::NoText { scanned: false })
    );
}

#[test]
fn charts_and_diagrams_stand_behind_the_text() {
    let rels = r#"<Relationships><Relationship Id="a" Type="x/chart" Target="charts/c.xml"/><Relationship Id="b" Type="x/diagramData" Target="/word/d.xml"/>
        <Relationship Id="c" Type="x/chart" Target="http://127.0.0.1/c.xml" TargetMode="External"/></Relationships>"#;
    let chart = r#"<c:c xmlns:c="c"><c:barChart><c:ser><c:tx><c:v>Sales</c:v></c:tx><c:cat><c:pt idx="0"><c:v>May</c:v></c:pt></c:cat><c:val><c:pt idx="0"><c:v>5</c:v></c:pt></c:val></c:ser></c:barChart></c:c>"#;
    let diagram =
        r#"<d:m xmlns:d="d" xmlns:a="a"><d:pt><d:t><a:p><a:t>Step one</a:t></a:p></d:t></d:pt></d:m>"#;

    let document = read_with(
        &plain("text"),
        &[
            ("word/_rels/document.xml.rels", rels.as_bytes()),
            ("word/charts/c.xml", chart.as_bytes()),
            ("word/d.xml", diagram.as_bytes()),
        ],
    )
    .expect("text");

    assert_eq!(document.text, "text\n\nBar chart\n\nMay\nSales: 5\n\nStep one");
}
