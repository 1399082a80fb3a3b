use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::{Block, BlockKind};

fn read(page: &str) -> ExtractedDocument {
    extract(page.as_bytes(), &Hints::default(), &Limits::default()).expect("the page has text")
}

/// The time of this thread, which a busy machine does not change.
fn cpu_seconds() -> i64 {
    clock_gettime(ClockId::ThreadCPUTime).tv_sec
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
         <footer>twelve</footer>pay\u{200b}ment <textarea>thirteen</textarea>
         <p style='position:absolute; left: -9999px'>fourteen</p><p style='text-indent:-999em'>fifteen</p>
         <p style='left:-1200px'>a slide</p>",
    );

    assert_eq!(document.text, "visible\n\ntwo\n\nseven\n\npayment\n\na slide");
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
    let begin = cpu_seconds();
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
    assert!(cpu_seconds() - begin < 10, "{} s", cpu_seconds() - begin);
}

#[test]
fn scripts_that_look_like_endless_tags_are_no_reason_to_refuse() {
    let script = format!("<script>if (a <b {}) c;</script><p>text", "|| d e ".repeat(600));

    assert_eq!(read(&script).text, "text");
}

/// A page with everything that a site puts around an article.
fn site(content: &str) -> String {
    let sentence = "Our readers have liked this very much for many years now.";
    format!(
        "<title>Brewing coffee | Site</title><body class=has-sidebar>
         <div class=cookie-banner><p>We and our partners use cookies to measure how you use this page. {sentence}</div>
         <header><div class=logo>Site</div><ul class=main-menu><li><a href=/a>Home</a><li><a href=/b>News</a></ul></header>
         <div class=wrapper><div class=column>{content}</div>
         <div class=sidebar><h3>Most read</h3><ul><li><a href=/1>One</a><li><a href=/2>Two</a></ul><p>{sentence}</div></div>
         <div class=related-posts><h4>You may also like</h4><p>{sentence}</div>
         <section id=comments><h3>3 comments</h3><p>First! {sentence}</section>
         <div class=share-buttons><a href=//x.example>Share</a></div><footer>© Site</footer>"
    )
}

/// Enough sentences for an article.
const PROSE: &str = "Water just off the boil draws the most from the beans, and a coarse grind keeps bitterness low. \
    Pour slowly, wait half a minute, then pour the rest in circles until the scale shows what the recipe asks for. \
    Old beans need more time, fresh ones less; taste and change one thing at a time, for else nobody learns anything.";

#[test]
fn of_an_article_page_only_the_article_is_text() {
    let document = read(&site(&format!(
        "<h1>Brewing coffee</h1><p>{PROSE}<h2>Grinding</h2><p>{PROSE}<ul><li>Burr mill<li>Scale</ul>
         <table><tr><th>Cup<th>Grams<tr><td>Small<td>12</table><dl><dt>Bloom<dd>The first pour.</dl>
         <pre>grind --coarse</pre><p><img src=x.png alt='A kettle with a thin spout'>"
    )));

    assert_eq!(document.title.as_deref(), Some("Brewing coffee"));
    assert_eq!(document.blocks[1].heading_path, ["Brewing coffee", "Grinding"]);
    assert_eq!(
        document.text,
        format!(
            "{PROSE}\n\nGrinding\n\n{PROSE}\n\nBurr mill\nScale\n\nCup | Grams\nSmall | 12\n\nBloom\n\nThe first pour.\n\n\
             grind --coarse\n\nA kettle with a thin spout"
        )
    );
}

#[test]
fn an_element_with_most_of_the_prose_is_content_whatever_it_is_called() {
    for name in [
        "sidebar",
        "modal",
        "comments",
        "related",
        "cookie-policy",
        "share",
    ] {
        let page = format!("<p>Welcome.<div class={name}><p>{PROSE}<p>{PROSE}<p>{PROSE}</div>");

        assert!(read(&page).text.contains("Water just off"), "{name}");
    }
}

#[test]
fn sections_of_equal_weight_are_all_content() {
    let section = |name: &str| format!("<section><h2>{name}</h2><p>{name}: {PROSE}</section>");
    let page = site(&["Menu", "Rooms", "Hours"].map(section).concat());

    let text = read(&page).text;

    assert!(text.starts_with("Menu\n\nMenu: Water"), "{text}");
    assert!(
        text.contains("Rooms: Water") && text.contains("Hours: Water"),
        "{text}"
    );
    assert!(
        !text.contains("cookies") && !text.contains("liked this"),
        "{text}"
    );
}

#[test]
fn teasers_of_other_pages_are_left_out_unless_the_page_is_made_of_them() {
    let teaser = |n: usize| {
        format!("<div><h3><a href=/{n}>Page {n}</a></h3><p>What page {n} has to say about it.</div>")
    };
    let teasers: String = (0..6).map(teaser).collect();
    let article = site(&format!(
        "<h1>Brewing coffee</h1><p>{PROSE}<p>{PROSE}<div>{teasers}</div>"
    ));

    assert!(!read(&article).text.contains("has to say"));
    assert_eq!(
        read(&format!("<div>{teasers}</div>"))
            .text
            .matches("has to say")
            .count(),
        6
    );
}

#[test]
fn a_thread_of_comments_is_the_content_of_a_forum() {
    let post = |n: usize| format!("<div class=comment-body><p>Answer {n}. {PROSE}</div>");
    let page = format!("<h1>Which mill?</h1>{}", (0..5).map(post).collect::<String>());

    assert_eq!(read(&page).text.matches("Answer").count(), 5);
}

#[test]
fn headings_that_lead_to_themselves_are_no_links() {
    let page = site(&format!(
        "<h1>Brewing coffee</h1><h2><a href='#a'>First</a></h2><p>{PROSE}<h2><a href='#b'>Second</a></h2><p>{PROSE}"
    ));

    let document = read(&page);

    assert_eq!(document.text, format!("First\n\n{PROSE}\n\nSecond\n\n{PROSE}"));
    assert_eq!(document.blocks[1].heading_path, ["Brewing coffee", "First"]);
}

#[test]
fn a_picture_is_named_once() {
    let page = "<p>Look: <img alt='a red kettle'> and <img alt='a red kettle'> here.";

    assert_eq!(read(page).text, "Look: a red kettle and here.");
}

#[test]
fn a_page_of_labels_loses_nothing() {
    let page = "<h1>Prices</h1><div class=banner>Sale</div><form><p>Small: 5 €<p>Large: 7 €</form><button>Order now?</button>";

    let text = read(page).text;

    assert!(
        text.contains("Small: 5 €") && text.contains("Large: 7 €"),
        "{text}"
    );
}

#[test]
fn questions_on_buttons_and_addresses_to_write_to_are_text() {
    let page = site(&format!(
        "<h1>Brewing coffee</h1><p>{PROSE}<button>How long does it take?</button><div><p>{PROSE}</div>
         <button>Show</button><h3><button>Costs</button></h3><p>{PROSE}<p><a href='mailto:desk@a.example'>desk@a.example</a><p><a href=/more>Read the next one</a>"
    ));

    assert_eq!(
        read(&page).text,
        format!("{PROSE}\n\nHow long does it take?\n\n{PROSE}\n\nCosts\n\n{PROSE}\n\ndesk@a.example")
    );
}

#[test]
fn what_holds_the_heading_of_the_page_is_content_whatever_it_is_called() {
    let section = |name: &str| format!("<section><h2>{name}</h2><p>{name}: {PROSE}</section>");
    let hero = "<div class=hero-banner><h1>Brewing coffee</h1><p>Better in the morning, every morning.</div>";
    let page = site(&format!("{hero}{}{}", section("Mills"), section("Beans")));

    assert!(
        read(&page).text.starts_with("Better in the morning"),
        "{}",
        read(&page).text
    );
}

#[test]
fn a_page_of_very_many_elements_ends_soon() {
    let begin = cpu_seconds();
    let page =
        site(&"<div class='a b'><h3><a href=/x>T</a></h3><p>One sentence, no more.</div>".repeat(100_000));

    let titled = format!(
        "<title>{}</title>{}",
        "x ".repeat(1_000_000),
        "<h2>y</h2><p>One sentence.".repeat(50_000)
    );

    assert!(read(&page).text.contains("One sentence"));
    assert!(read(&titled).text.contains("One sentence"));
    assert!(cpu_seconds() - begin < 20, "{} s", cpu_seconds() - begin);
}
