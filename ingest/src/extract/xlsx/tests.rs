use crate::extract::package::pack;
use crate::{ExtractError, ExtractedDocument, Format, Hints, Limits};

const RELATIONSHIPS: &str = r#"<Relationships><Relationship Id="a" Type="x/worksheet" Target="1.xml"/><Relationship Id="b" Type="x/worksheet" Target="2.xml"/>
    <Relationship Id="s" Type="x/sharedStrings" Target="strings.xml"/><Relationship Id="t" Type="x/styles" Target="styles.xml"/></Relationships>"#;

const STYLES: &str = r#"<styleSheet><numFmts><numFmt numFmtId="164" formatCode="dd/mm/yyyy"/></numFmts>
    <cellXfs><xf numFmtId="0"/><xf numFmtId="164"/><xf numFmtId="9"/></cellXfs></styleSheet>"#;

fn read_with(sheet: &str, more: &[(&str, &str)], limits: &Limits) -> Result<ExtractedDocument, ExtractError> {
    let sheet = format!("<worksheet>{sheet}</worksheet>");
    let mut members = vec![
        (
            "xl/workbook.xml",
            r#"<workbook xmlns:r="r"><sheets><sheet name="Prices" r:id="a"/><sheet name="Costs" state="hidden" r:id="b"/></sheets></workbook>"#,
        ),
        ("xl/_rels/workbook.xml.rels", RELATIONSHIPS),
        ("xl/styles.xml", STYLES),
        (
            "xl/strings.xml",
            "<sst><si><t>Item</t></si><si><r><t>Oak </t></r><r><t>chair</t></r><rPh><t>ignored</t></rPh></si></sst>",
        ),
        ("xl/1.xml", &sheet),
        (
            "xl/2.xml",
            r#"<worksheet><sheetData><row r="1"><c r="A1" t="str"><v>secret</v></c></row></sheetData></worksheet>"#,
        ),
    ];
    members.extend(more);
    crate::extract(&pack(&members), Format::Xlsx, &Hints::default(), limits)
}

fn read(sheet: &str) -> ExtractedDocument {
    read_with(sheet, &[], &Limits::default()).expect("it has text")
}

#[test]
fn cells_are_read_as_they_are_shown_and_each_row_names_its_values() {
    let document = read(
        r#"<sheetData><row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="inlineStr"><is><t>Since</t></is></c><c r="C1" t="str"><v>Off</v></c><c r="D1" t="str"><v>New</v></c></row>
           <row r="2"><c r="A2" t="s"><v>1</v></c><c r="B2" s="1"><v>45292</v></c><c r="C2" s="2"><f>1/4</f><v>0.25</v></c><c r="D2" t="b"><v>1</v></c></row>
           <row><c t="s"><v>1</v></c><c t="e"><v>#REF!</v></c><c><v>7.5</v></c></row></sheetData>"#,
    );

    assert_eq!(
        document.text,
        "Prices\n\nItem: Oak chair\nSince: 2024-01-01\nOff: 25%\nNew: TRUE\n\nItem: Oak chair\nOff: 7.5"
    );
    assert_eq!(document.blocks[1].heading_path, ["Prices"]);
    assert_eq!(document.title, None);
}

#[test]
fn hidden_sheets_rows_and_columns_are_not_text() {
    let document = read(
        r#"<cols><col min="2" max="2" hidden="1"/></cols><sheetData><row r="1"><c r="A1" t="str"><v>shown</v></c><c r="B1" t="str"><v>cost</v></c></row>
           <row r="2" hidden="1"><c r="A2" t="str"><v>old</v></c></row></sheetData>"#,
    );

    assert_eq!(document.text, "Prices\n\nshown");
}

#[test]
fn notes_text_boxes_and_charts_stand_behind_the_cells() {
    let beside = r#"<Relationships><Relationship Id="a" Type="x/comments" Target="n.xml"/><Relationship Id="b" Type="x/drawing" Target="d.xml"/></Relationships>"#;
    let chart = r#"<c xmlns:c="c"><c:lineChart><c:ser><c:tx><c:v>Sales</c:v></c:tx><c:val><c:pt idx="0"><c:v>5</c:v></c:pt></c:val></c:ser></c:lineChart></c>"#;

    let document = read_with(
        r#"<sheetData><row r="1"><c r="A1" t="str"><v>shown</v></c></row></sheetData>"#,
        &[
            ("xl/_rels/1.xml.rels", beside),
            (
                "xl/n.xml",
                r#"<comments><comment ref="A1"><text><t>Ask Ada</t></text></comment></comments>"#,
            ),
            (
                "xl/d.xml",
                "<w xmlns:a='a'><a:p><a:r><a:t>In a box</a:t></a:r></a:p></w>",
            ),
            (
                "xl/_rels/d.xml.rels",
                r#"<Relationships><Relationship Id="c" Type="x/chart" Target="c.xml"/></Relationships>"#,
            ),
            ("xl/c.xml", chart),
        ],
        &Limits::default(),
    )
    .expect("it has text");

    assert_eq!(
        document.text,
        "Prices\n\nshown\n\nIn a box\n\nLine chart\n\nSales: 5\n\nA1: Ask Ada"
    );
}

#[test]
fn a_sheet_is_as_large_as_its_cells_and_not_as_it_claims() {
    let document = read(
        r#"<dimension ref="A1:XFD1048576"/><sheetData><row r="1"><c r="A1" t="str"><v>one</v></c></row>
           <row r="1048576"><c r="XFD1048576" t="str"><v>last</v></c></row><row r="99999999999"><c r="ZZZZZZZZZ1" t="str"><v>beyond</v></c></row></sheetData>"#,
    );

    assert_eq!(document.text, "Prices\n\none\n\nlast");
}

#[test]
fn a_string_that_many_cells_share_cannot_fill_the_memory() {
    let cells = r#"<c t="s"><v>1</v></c>"#.repeat(2_000);
    let sheet = format!(
        "<sheetData>{}</sheetData>",
        format!("<row>{cells}</row>").repeat(20)
    );
    let strings = format!("<sst><si/><si><t>{}</t></si></sst>", "word ".repeat(1_000));
    let limits = Limits {
        max_unpacked_bytes: 4 << 20,
        ..Limits::default()
    };

    let outcome = read_with(&sheet, &[("xl/strings2.xml", &strings)], &limits);
    assert!(outcome.is_ok(), "{outcome:?}");

    let replaced = pack(&[
        (
            "xl/workbook.xml",
            r#"<workbook xmlns:r="r"><sheets><sheet name="Prices" r:id="a"/></sheets></workbook>"#,
        ),
        ("xl/_rels/workbook.xml.rels", RELATIONSHIPS),
        ("xl/strings.xml", &strings),
        ("xl/1.xml", &format!("<worksheet>{sheet}</worksheet>")),
    ]);
    let outcome = crate::extract(&replaced, Format::Xlsx, &Hints::default(), &limits);

    assert_eq!(outcome.map_err(|error| error.code()), Err("too_large"));
}
