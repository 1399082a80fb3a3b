use crate::extract::package::pack;
use crate::{BlockKind, ExtractError, ExtractedDocument, Format, Hints, Limits};

/// A presentation of these slides, with what stands beside the first one.
fn read_with(
    slides: &[&str],
    beside: &str,
    more: &[(&str, &str)],
) -> Result<ExtractedDocument, ExtractError> {
    let ids: String = (0..slides.len())
        .map(|at| format!(r#"<p:sldId r:id="s{at}"/>"#))
        .collect();
    let table =
        format!(r#"<p:presentation xmlns:p="p" xmlns:r="r"><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>"#);
    let parts: String = (0..slides.len())
        .map(|at| format!(r#"<Relationship Id="s{at}" Type="x/slide" Target="slides/{at}.xml"/>"#))
        .collect();
    let parts = format!("<Relationships>{parts}</Relationships>");
    let beside = format!("<Relationships>{beside}</Relationships>");
    let slides: Vec<(String, String)> = slides
        .iter()
        .enumerate()
        .map(|(at, slide)| (format!("ppt/slides/{at}.xml"), (*slide).to_owned()))
        .collect();
    let mut members: Vec<(&str, &str)> = vec![
        ("ppt/presentation.xml", &table),
        ("ppt/_rels/presentation.xml.rels", &parts),
        ("ppt/slides/_rels/0.xml.rels", &beside),
    ];
    members.extend(slides.iter().map(|(name, slide)| (name.as_str(), slide.as_str())));
    members.extend(more);
    crate::extract(
        &pack(&members),
        Format::Pptx,
        &Hints::default(),
        &Limits::default(),
    )
}

fn slide(shapes: &str) -> String {
    format!(r#"<p:sld xmlns:p="p" xmlns:a="a"><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld></p:sld>"#)
}

fn shape(placeholder: &str, paragraphs: &[&str]) -> String {
    let paragraphs: String = paragraphs
        .iter()
        .map(|text| format!("<a:p><a:r><a:t>{text}</a:t></a:r></a:p>"))
        .collect();
    format!(
        "<p:sp><p:nvSpPr><p:cNvPr/><p:nvPr>{placeholder}</p:nvPr></p:nvSpPr><p:txBody>{paragraphs}</p:txBody></p:sp>"
    )
}

#[test]
fn slides_are_pages_with_their_titles_as_headings() {
    let first = slide(&format!(
        "{}{}{}",
        shape("<p:ph/>", &["Within 30 days", "With receipt"]),
        shape(r#"<p:ph type="title"/>"#, &["Returns"]),
        shape(r#"<p:ph type="sldNum"/>"#, &["1"]),
    ));
    let second = slide(&shape("", &["Loose text"]));

    let document = read_with(&[&first, &second], "", &[]).expect("it has text");

    assert_eq!(
        document.text,
        "Returns\n\nWithin 30 days\nWith receipt\n\nLoose text"
    );
    assert_eq!(document.page_count, Some(2));
    let kinds: Vec<&BlockKind> = document.blocks.iter().map(|block| &block.kind).collect();
    assert_eq!(
        kinds,
        [
            &BlockKind::Heading { level: 1 },
            &BlockKind::ListItem,
            &BlockKind::ListItem,
            &BlockKind::Paragraph
        ]
    );
    assert_eq!(document.blocks[3].page, Some(2));
}

#[test]
fn tables_notes_charts_and_diagrams_are_text() {
    let table = "<p:graphicFrame><a:tbl><a:tr><a:tc><a:p><a:r><a:t>Day</a:t></a:r></a:p></a:tc><a:tc><a:p><a:r><a:t>Hours</a:t></a:r></a:p></a:tc></a:tr>\
                 <a:tr><a:tc><a:p><a:r><a:t>Monday</a:t></a:r></a:p></a:tc><a:tc><a:p><a:r><a:t>9</a:t></a:r></a:p></a:tc></a:tr></a:tbl></p:graphicFrame>";
    let notes = slide(&shape(r#"<p:ph type="body"/>"#, &["Say it slowly"]));
    let chart = r#"<c:chartSpace xmlns:c="c" xmlns:a="a"><c:title><a:t>Sales</a:t></c:title><c:pieChart><c:ser><c:tx><c:f>A1</c:f><c:v>Units</c:v></c:tx>
        <c:cat><c:pt idx="0"><c:v>May</c:v></c:pt></c:cat><c:val><c:pt idx="0"><c:v>5</c:v></c:pt></c:val></c:ser></c:pieChart></c:chartSpace>"#;
    let diagram = r#"<d:dataModel xmlns:d="d" xmlns:a="a"><d:pt><d:t><a:p><a:r><a:t>Step one</a:t></a:r></a:p></d:t></d:pt></d:dataModel>"#;
    let beside = r#"<Relationship Id="a" Type="x/chart" Target="../c.xml"/><Relationship Id="b" Type="x/diagramData" Target="../d.xml"/>
        <Relationship Id="c" Type="x/notesSlide" Target="/ppt/n.xml"/><Relationship Id="d" Type="x/chart" Target="http://127.0.0.1/c.xml" TargetMode="External"/>"#;

    let document = read_with(
        &[&slide(table)],
        beside,
        &[
            ("ppt/c.xml", chart),
            ("ppt/d.xml", diagram),
            ("ppt/n.xml", &notes),
        ],
    )
    .expect("it has text");

    assert_eq!(
        document.text,
        "Day | Hours\nMonday | 9\n\nPie chart: Sales\n\nMay\nUnits: 5\n\nStep one\n\nSay it slowly"
    );
    assert!(
        document.blocks.iter().all(|block| block.page == Some(1)),
        "charts too"
    );
}

#[test]
fn hidden_slides_and_shapes_are_not_text() {
    let hidden = slide(&shape("", &["secret"])).replace("<p:sld ", r#"<p:sld show="0" "#);
    let shown = slide(&format!(
        "{}{}",
        shape("", &["trap"]).replace("<p:cNvPr/>", r#"<p:cNvPr hidden="1"/>"#),
        shape("", &["seen"])
    ));

    let document = read_with(&[&hidden, &shown], "", &[]).expect("it has text");

    assert_eq!(document.text, "seen");
    assert_eq!(document.blocks[0].page, Some(2));
}
