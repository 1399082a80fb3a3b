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
    ])
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
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("word/document.xml", SimpleFileOptions::default())?;
    writer.write_all(body)?;
    Ok(writer.finish()?.into_inner())
}
