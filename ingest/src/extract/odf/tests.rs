use crate::extract::package::pack;
use crate::{BlockKind, ExtractedDocument, Format, Hints, Limits};

const STYLES: &str = r#"<automatic-styles>
    <style family="paragraph" name="P1" parent-style-name="Title"/>
    <style family="paragraph" name="P2" parent-style-name="Preformatted_20_Text"/>
    <style family="text" name="Hidden"><text-properties display="none"/></style>
    <style family="table" name="HiddenSheet"><table-properties display="false"/></style>
    <style family="drawing-page" name="HiddenSlide"><drawing-page-properties visibility="hidden"/></style>
    <list-style name="L1"><list-level-style-number level="1" num-format="1" num-suffix="."/><list-level-style-bullet level="2"/></list-style>
</automatic-styles>"#;

fn read_as(format: Format, body: &str, more: &[(&str, &str)]) -> ExtractedDocument {
    let content = format!("<content>{STYLES}<body>{body}</body></content>");
    let mut members = vec![("content.xml", content.as_str())];
    members.extend(more);
    crate::extract(&pack(&members), format, &Hints::default(), &Limits::default()).expect("it has text")
}

#[test]
fn headings_lists_tables_notes_and_code_are_read() {
    let document = read_as(
        Format::Odt,
        r#"<p style-name="P1">Terms</p><h outline-level="2">Returns</h>
           <p>Within<s c="3"/>30 days<note><note-citation>1</note-citation><note-body><p>If new.</p></note-body></note>.</p>
           <list style-name="L1"><list-item><p>First</p><list><list-item><p>Inner</p></list-item></list></list-item><list-item><p>Second</p></list-item></list>
           <table><table-header-rows><table-row><table-cell><p>Day</p></table-cell><table-cell><p>Hours</p></table-cell></table-row></table-header-rows>
           <table-row><table-cell number-rows-spanned="2"><p>Monday</p></table-cell><table-cell><p>9</p></table-cell></table-row>
           <table-row><covered-table-cell/><table-cell><p>14</p></table-cell></table-row></table>
           <p style-name="P2">make</p><p style-name="P2">run</p>"#,
        &[(
            "meta.xml",
            "<m><title>Handbook</title><language>en</language></m>",
        )],
    );

    assert_eq!(
        document.text,
        "Terms\n\nReturns\n\nWithin 30 days.\n\nIf new.\n\n1. First\nInner\n2. Second\n\nDay | Hours\nMonday | 9\nMonday | 14\n\nmake\nrun"
    );
    assert_eq!(document.title.as_deref(), Some("Handbook"));
    assert_eq!(document.metadata.language.as_deref(), Some("en"));
    assert_eq!(document.blocks[1].kind, BlockKind::Heading { level: 2 });
}

#[test]
fn what_is_deleted_hidden_or_remarked_is_not_text() {
    let document = read_as(
        Format::Odt,
        r#"<tracked-changes><p>deleted</p></tracked-changes><table-of-content><p>Terms 1</p></table-of-content>
           <p>Seen <span style-name="Hidden">not</span><annotation><p>remark</p></annotation>text</p><section display="none"><p>trap</p></section>
           <p>x<hidden-paragraph/></p>"#,
        &[],
    );

    assert_eq!(document.text, "Seen text");
}

#[test]
fn slides_are_pages_and_hidden_ones_are_left_out() {
    let document = read_as(
        Format::Odp,
        r#"<page><frame class="title"><p>Hours</p></frame><frame><p>Daily</p></frame><frame class="page-number"><p>1</p></frame></page>
           <page style-name="HiddenSlide"><frame><p>secret</p></frame></page>
           <page><frame><p>End</p><object href="./Object 1"/></frame></page>"#,
        &[(
            "Object 1/content.xml",
            "<c><table><table-row><table-cell><p>May</p></table-cell><table-cell><p>5</p></table-cell></table-row></table></c>",
        )],
    );

    assert_eq!(document.text, "Hours\n\nDaily\n\nEnd\n\nMay | 5");
    assert_eq!(document.blocks[0].kind, BlockKind::Heading { level: 1 });
    assert_eq!((document.blocks[2].page, document.page_count), (Some(3), Some(3)));
}

#[test]
fn visible_cells_of_visible_sheets_are_read() {
    let document = read_as(
        Format::Ods,
        r#"<table name="Prices"><table-column/><table-column visibility="collapse"/><table-column/>
           <table-row><table-cell><p>Item</p></table-cell><table-cell><p>Cost</p></table-cell><table-cell><p>Price</p></table-cell></table-row>
           <table-row visibility="filter"><table-cell><p>Old</p></table-cell></table-row>
           <table-row><table-cell><p>Chair</p><annotation><creator>Ada</creator><p>Oak only</p></annotation></table-cell><table-cell><p>20</p></table-cell><table-cell><p>45 €</p></table-cell></table-row>
           <table-row number-rows-repeated="1048573"><table-cell number-columns-repeated="16384"/></table-row></table>
           <table name="Costs" style-name="HiddenSheet"><table-row><table-cell><p>secret</p></table-cell></table-row></table>"#,
        &[],
    );

    assert_eq!(document.text, "Prices\n\nItem: Chair\nPrice: 45 €\n\nOak only");
}
