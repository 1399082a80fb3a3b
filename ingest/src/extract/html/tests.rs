use super::*;
use crate::{Block, BlockKind};

fn read(page: &str) -> ExtractedDocument {
    extract(page.as_bytes(), &Hints::default(), &Limits::default()).expect("the page has text")
}

fn kinds(document: &ExtractedDocument) -> Vec<&BlockKind> {
    document.blocks.iter().map(|block| &block.kind).collect()
}

#[test]
fn headings_lists_code_and_tables_become_blocks() {
    let document = read(
        "<!doctype html><title>Help &amp; more</title><body><h1>Shop</h1><p>Open\n daily<br>except Monday.
         <ul><li>One<li>Two <b>bold</b></ul><pre>let a;\n  b</pre>
         <table><tr><th>Size<th>Price<tr><td>S<td>5 €<tr><td>M<td>6 €</table>tail",
    );

    assert_eq!(document.title.as_deref(), Some("Help & more"));
    assert_eq!(
        document.text,
        "Shop\n\nOpen daily\nexcept Monday.\n\nOne\nTwo bold\n\nlet a;\n  b\n\nSize | Price\nS | 5 €\nM | 6 €\n\ntail"
    );
    let header = Some("Size | Price".to_owned());
    assert_eq!(
        kinds(&document),
        [
            &BlockKind::Heading { level: 1 },
            &BlockKind::Paragraph,
            &BlockKind::ListItem,
            &BlockKind::ListItem,
            &BlockKind::Code,
            &BlockKind::TableRow { header: None },
            &BlockKind::TableRow {
                header: header.clone()
            },
            &BlockKind::TableRow { header },
            &BlockKind::Paragraph,
        ]
    );
    assert!(
        document
            .blocks
            .iter()
            .all(|block: &Block| block.heading_path == ["Shop"])
    );
}

#[test]
fn what_a_visitor_does_not_see_is_not_text() {
    let document = read(
        "<html><style>.trap { display:none } @media print { .shown { display: none } }</style>
         <script>var a = '<p>script</p>';</script><body><nav>menu</nav><p>visible</p><!-- comment -->
         <p hidden>one <p>two</p><div style='display: none'>three <div>four</div> five</div>
         <span class=trap>six</span><div class=shown>seven</div><div aria-hidden=true>eight</div>
         <span style='font-size:0px'>nine</span><noscript>ten</noscript><template><p>eleven</template>
         <footer>twelve</footer>pay\u{200b}ment <textarea>thirteen</textarea>",
    );

    assert_eq!(document.text, "visible\n\ntwo\n\nseven\n\npayment");
}

#[test]
fn an_unclosed_hidden_element_ends_with_the_element_around_it() {
    assert_eq!(read("<div>a <span hidden>b</div><p>c").text, "a\n\nc");
    assert_eq!(read("<ul><li hidden>a<ul><li>b</ul><li>c</ul>").text, "c");
}

#[test]
fn pictures_speak_by_their_alternative_text() {
    assert_eq!(
        read("<p>See <img src=http://127.0.0.1/x.png alt='the map'> here").text,
        "See the map here"
    );
}

#[test]
fn cells_that_span_rows_are_repeated_in_each() {
    let document = read(
        "<table><tr><th>Year<th>Month<th>Sum<tr><td rowspan=2>2025<td>May<td>3<tr><td>June<td>4
         <tr><td colspan=2>all<td rowspan=9999>7<tr><td>x<td>y</table>",
    );

    assert_eq!(
        document.text,
        "Year | Month | Sum\n2025 | May | 3\n2025 | June | 4\nall | 7\nx | y | 7"
    );
}

#[test]
fn tables_that_arrange_the_page_are_read_as_page() {
    let document = read("<table><tr><td>side<td><h2>News</h2><p>All well.</table>");

    assert_eq!(document.text, "side\n\nNews\n\nAll well.");
    assert_eq!(document.blocks[1].kind, BlockKind::Heading { level: 2 });
}

#[test]
fn declared_encodings_are_obeyed() {
    let page = b"<meta charset=windows-1251><p>\xcf\xf0\xe8\xe2\xe5\xf2";
    let wrong = "<meta charset=iso-8859-1><p>größer".as_bytes();

    assert_eq!(
        extract(page, &Hints::default(), &Limits::default()).map(|document| document.text),
        Ok("Привет".to_owned())
    );
    assert_eq!(
        extract(wrong, &Hints::default(), &Limits::default()).map(|document| document.text),
        Ok("größer".to_owned())
    );
}

#[test]
fn entities_of_a_doctype_are_not_expanded() {
    let bomb = "<!DOCTYPE html [<!ENTITY a 'AAAA'><!ENTITY b SYSTEM 'file:///etc/passwd'>]><p>x &a; &b; y";

    let text = read(bomb).text;

    assert!(text.ends_with("x &a; &b; y"), "{text}");
}

#[test]
fn absurd_nesting_and_attributes_end_soon() {
    let begin = std::time::Instant::now();
    let deep = format!(
        "{}bottom{}",
        "<div><b><p>".repeat(100_000),
        "</div>".repeat(100_000)
    );
    let tables = format!("{}cell", "<table><tr><td>".repeat(50_000));
    let attributes = format!(
        "<p {}>x",
        (0..200_000).map(|n| format!("a{n} ")).collect::<String>()
    );

    assert_eq!(read(&deep).text, "bottom");
    assert_eq!(read(&tables).text, "cell");
    let refused =
        extract(attributes.as_bytes(), &Hints::default(), &Limits::default()).map_err(|error| error.code());
    assert_eq!(refused, Err("too_large"));
    assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
}

#[test]
fn scripts_that_look_like_endless_tags_are_no_reason_to_refuse() {
    let script = format!("<script>if (a <b {}) c;</script><p>text", "|| d e ".repeat(600));

    assert_eq!(read(&script).text, "text");
}
