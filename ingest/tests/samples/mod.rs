//! Whole small files of every format, to be read, mutated and cut.

use std::io::{Cursor, Write};
use std::path::Path;

use ingest::Format;
use zip::write::{SimpleFileOptions, ZipWriter};

/// A file of every format that is read here. Each says that goods may be returned.
pub fn samples() -> Vec<(Format, Vec<u8>)> {
    Format::ALL
        .into_iter()
        .filter_map(|format| Some((format, sample(format)?)))
        .collect()
}

fn sample(format: Format) -> Option<Vec<u8>> {
    let demo = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/demo");
        std::fs::read(folder.join(name)).expect("the demo file is there")
    };
    Some(match format {
        Format::Pdf => demo("product-guide.pdf"),
        Format::Docx => demo("warranty-terms.docx"),
        Format::Pptx => pptx(),
        Format::Xlsx => xlsx(),
        Format::Odt => open_document("text", ODT),
        Format::Odp => open_document("presentation", ODP),
        Format::Ods => open_document("spreadsheet", ODS),
        Format::Rtf => RTF.into(),
        Format::Epub => epub(),
        Format::Html => demo("delivery-and-returns.html"),
        Format::Markdown | Format::Text => demo("company.md"),
        Format::Rst => RST.into(),
        Format::Asciidoc => ASCIIDOC.into(),
        Format::Csv => demo("faq.csv"),
        Format::Json => JSON.into(),
        Format::Jsonl => JSON_LINES.into(),
        Format::Eml => EML.into(),
        Format::Msg => msg(),
        Format::Zip => archive(&[
            ("a/terms.md", b"# Terms\n\nGoods may be returned."),
            ("b.csv", b"Day,Hours\nMonday,9\n"),
        ]),
        Format::Picture | Format::Recording => return None,
    })
}

/// An archive with these members, in this order.
pub fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        writer
            .start_file(*name, SimpleFileOptions::default())
            .expect("a new entry");
        writer.write_all(content).expect("written to memory");
    }
    writer.finish().expect("a whole archive").into_inner()
}

fn pptx() -> Vec<u8> {
    archive(&[
        ("ppt/presentation.xml", br#"<p:presentation xmlns:p="p" xmlns:r="r"><p:sldIdLst><p:sldId id="256" r:id="rId1"/></p:sldIdLst></p:presentation>"#),
        ("ppt/_rels/presentation.xml.rels", br#"<Relationships><Relationship Id="rId1" Type="x/slide" Target="slides/slide1.xml"/></Relationships>"#),
        (
            "ppt/slides/slide1.xml",
            br#"<p:sld xmlns:p="p" xmlns:a="a"><p:sp><p:nvPr><p:ph type="title"/></p:nvPr><a:p><a:r><a:t>Returns</a:t></a:r></a:p></p:sp>
                <p:sp><p:nvPr><p:ph/></p:nvPr><a:p><a:pPr lvl="1"/><a:r><a:t>Goods may be returned.</a:t></a:r></a:p></p:sp>
                <p:graphicFrame><a:tbl><a:tr><a:tc gridSpan="2"><a:p><a:r><a:t>Day</a:t></a:r></a:p></a:tc></a:tr></a:tbl></p:graphicFrame></p:sld>"#,
        ),
        (
            "ppt/slides/_rels/slide1.xml.rels",
            br#"<Relationships><Relationship Id="rId1" Type="x/chart" Target="../charts/c.xml"/><Relationship Id="rId2" Type="x/diagramData" Target="../d.xml"/></Relationships>"#,
        ),
        (
            "ppt/charts/c.xml",
            br#"<c:chart xmlns:c="c"><c:barChart><c:ser><c:tx><c:v>Sales</c:v></c:tx><c:cat><c:pt idx="0"><c:v>May</c:v></c:pt></c:cat>
                <c:val><c:pt idx="0"><c:v>5</c:v></c:pt></c:val></c:ser></c:barChart></c:chart>"#,
        ),
        ("ppt/d.xml", br#"<dgm:dataModel xmlns:dgm="d" xmlns:a="a"><dgm:pt><dgm:t><a:p><a:r><a:t>Step</a:t></a:r></a:p></dgm:t></dgm:pt></dgm:dataModel>"#),
    ])
}

fn xlsx() -> Vec<u8> {
    archive(&[
        ("xl/workbook.xml", br#"<workbook xmlns:r="r"><sheets><sheet name="Prices" sheetId="1" r:id="rId1"/></sheets></workbook>"#),
        (
            "xl/_rels/workbook.xml.rels",
            br#"<Relationships><Relationship Id="rId1" Type="x/worksheet" Target="worksheets/sheet1.xml"/>
                <Relationship Id="rId2" Type="x/sharedStrings" Target="sharedStrings.xml"/><Relationship Id="rId3" Type="x/styles" Target="styles.xml"/></Relationships>"#,
        ),
        ("xl/sharedStrings.xml", br#"<sst><si><t>Item</t></si><si><t>Goods may be </t><r><t>returned</t></r></si></sst>"#),
        ("xl/styles.xml", br#"<styleSheet><numFmts><numFmt numFmtId="164" formatCode="yyyy-mm-dd"/></numFmts><cellXfs><xf numFmtId="0"/><xf numFmtId="164"/></cellXfs></styleSheet>"#),
        (
            "xl/worksheets/sheet1.xml",
            br#"<worksheet><dimension ref="A1:XFD1048576"/><cols><col min="4" max="4" hidden="1"/></cols><sheetData>
                <row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="inlineStr"><is><t>Since</t></is></c></row>
                <row r="2"><c r="A2" t="s"><v>1</v></c><c r="B2" s="1"><v>45292</v></c></row></sheetData>
                <mergeCells><mergeCell ref="A2:A3"/></mergeCells></worksheet>"#,
        ),
    ])
}

fn open_document(kind: &str, body: &str) -> Vec<u8> {
    let content = format!(
        r#"<office:document-content xmlns:office="o" xmlns:text="t" xmlns:table="b" xmlns:draw="d" xmlns:style="s" xmlns:presentation="p"><office:automatic-styles>
           <style:style style:name="Hidden" style:family="text"><style:text-properties text:display="none"/></style:style></office:automatic-styles>
           <office:body>{body}</office:body></office:document-content>"#
    );
    archive(&[
        (
            "mimetype",
            format!("application/vnd.oasis.opendocument.{kind}").as_bytes(),
        ),
        ("content.xml", content.as_bytes()),
        ("meta.xml", br#"<m xmlns:dc="dc"><dc:title>Terms</dc:title></m>"#),
    ])
}

const ODT: &str = r#"<office:text><text:h text:outline-level="1">Returns</text:h><text:p>Goods may<text:s text:c="2"/>be returned<text:note><text:note-body><text:p>If new.</text:p></text:note-body></text:note>.</text:p>
    <text:list text:style-name="L"><text:list-item><text:p>First</text:p></text:list-item></text:list>
    <table:table><table:table-row><table:table-cell table:number-rows-spanned="2"><text:p>Day</text:p></table:table-cell></table:table-row></table:table></office:text>"#;

const ODP: &str = r#"<office:presentation><draw:page draw:name="p"><draw:frame presentation:class="title"><draw:text-box><text:p>Returns</text:p></draw:text-box></draw:frame>
    <draw:frame><draw:text-box><text:p>Goods may be returned.</text:p></draw:text-box></draw:frame></draw:page></office:presentation>"#;

const ODS: &str = r#"<office:spreadsheet><table:table table:name="Prices"><table:table-column table:number-columns-repeated="3"/>
    <table:table-row><table:table-cell><text:p>Item</text:p></table:table-cell><table:table-cell><text:p>Rule</text:p></table:table-cell></table:table-row>
    <table:table-row table:number-rows-repeated="3"><table:table-cell table:number-columns-repeated="2"><text:p>Goods may be returned</text:p></table:table-cell></table:table-row></table:table></office:spreadsheet>"#;

const RTF: &str = r"{\rtf1\ansi{\fonttbl{\f0\fcharset204 A;}}{\stylesheet{\s1 heading 1;}}\pard\s1 Returns\par\pard Goods may {\b be} returned \u8364 ?\'e9.\par\trowd\intbl Day\cell Hours\cell\row}";

const RST: &str =
    "Returns\n=======\n\nGoods may be :ref:`returned <x>`.\n\n.. code:: sh\n\n   make run\n\n* item\n";

const ASCIIDOC: &str =
    "= Returns\n:toc:\n\nGoods may be returned.\n\n----\nmake run\n----\n\n* item\n|===\n|a |b\n|===\n";

const JSON: &str = r#"{"shop": "Acme", "rules": [{"name": "Returns", "text": "Goods may be returned.", "days": [30, 60], "who": {"new": true}}]}"#;

const JSON_LINES: &str = "{\"rule\": \"Goods may be returned.\"}\n{\"rule\": null, \"n\": [1, {\"a\": 2}]}\n";

const EML: &str = "From: Ada <ada@example.com>\r\nTo: shop@example.com\r\nSubject: =?utf-8?q?R=C3=BCckgabe?=\r\nDate: Mon, 4 Mar 2024 10:00:00 +0100\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGoods may be returned.\r\n--b\r\nContent-Type: text/csv; name=a.csv\r\nContent-Disposition: attachment; filename=a.csv\r\nContent-Transfer-Encoding: base64\r\n\r\nRGF5LEhvdXJzCk1vbmRheSw5Cg==\r\n--b--\r\n";

fn epub() -> Vec<u8> {
    archive(&[
        ("mimetype", b"application/epub+zip"),
        ("META-INF/container.xml", br#"<container><rootfile full-path="book/content.opf"/></container>"#),
        (
            "book/content.opf",
            br#"<package xmlns:dc="dc"><metadata><dc:title>Terms</dc:title><dc:date>2024-03-01</dc:date></metadata><manifest>
                <item id="a" href="one%20a.xhtml" media-type="application/xhtml+xml"/><item id="n" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>
                </manifest><spine><itemref idref="n"/><itemref idref="a"/></spine></package>"#,
        ),
        ("book/one a.xhtml", b"<html><body><h1>Returns</h1><p>Goods may be returned.</p></body></html>"),
        ("book/nav.xhtml", b"<html><body><p>Contents</p></body></html>"),
    ])
}

fn msg() -> Vec<u8> {
    let mut file = cfb::CompoundFile::create(Cursor::new(Vec::new())).expect("a new container");
    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    file.create_storage("/__attach_version1.0_#00000000")
        .expect("a new folder");
    // The head, then one value: sent on 4 March 2024 at 09:00 UTC.
    let mut times = vec![0; 32];
    times.extend([0x40, 0, 0x39, 0, 6, 0, 0, 0]);
    times.extend(133_540_164_000_000_000_u64.to_le_bytes());
    let streams = [
        ("/__properties_version1.0", times),
        ("/__substg1.0_0037001F", utf16("Returns")),
        ("/__substg1.0_0C1A001F", utf16("Ada")),
        ("/__substg1.0_5D01001F", utf16("ada@example.com")),
        ("/__substg1.0_1000001F", utf16("Goods may be returned.\r\n")),
        (
            "/__attach_version1.0_#00000000/__substg1.0_3707001F",
            utf16("hours.csv"),
        ),
        (
            "/__attach_version1.0_#00000000/__substg1.0_37010102",
            b"Day,Hours\nMonday,9\n".to_vec(),
        ),
    ];
    for (path, content) in streams {
        let mut stream = file.create_stream(path).expect("a new stream");
        stream.write_all(&content).expect("written to memory");
    }
    file.flush().expect("written to memory");
    file.into_inner().into_inner()
}
