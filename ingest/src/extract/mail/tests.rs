use super::*;
use crate::{Format, Hints, Limits};

fn read(mail: &str) -> ExtractedDocument {
    crate::extract(
        mail.as_bytes(),
        Format::Eml,
        &Hints::default(),
        &Limits::default(),
    )
    .expect("it has text")
}

#[test]
fn a_header_in_the_bytes_of_an_old_character_set_is_read_all_the_same() {
    let mail = "From: Doug <d@example.com>\r\nTo: J\u{fc}rgen Schm\u{fc}rgen <j@example.com>\r\n\
                Subject: Die Hasen und die Fr\u{f6}sche\r\nMIME-Version: 1.0\r\n\r\nText.\r\n";
    let (bytes, _, _) = encoding_rs::WINDOWS_1252.encode(mail);

    let document = crate::extract(&bytes, Format::Eml, &Hints::default(), &Limits::default());

    let document = document.expect("it has text");
    assert_eq!(document.title.as_deref(), Some("Die Hasen und die Fr\u{f6}sche"));
    assert!(
        document.text.contains("J\u{fc}rgen Schm\u{fc}rgen"),
        "{}",
        document.text
    );
}

#[test]
fn a_mail_gives_its_head_its_text_with_quotes_and_its_attachments() {
    let document = read(concat!(
        "From: =?utf-8?q?J=C3=BCrgen?= <j@example.com>\r\nTo: shop@example.com, Ada <ada@example.com>\r\n",
        "Subject: =?iso-8859-1?q?R=FCckgabe?=\r\nDate: Mon, 4 Mar 2024 10:00:00 +0100\r\nMIME-Version: 1.0\r\n",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n",
        "--c\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nYes, within 30 days.\r\n\r\n> May I return it?\r\n",
        "--c\r\nContent-Type: text/html\r\n\r\n<p>HTML <b>stand-in</b></p>\r\n--c--\r\n",
        "--b\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"hours.csv\"\r\nContent-Transfer-Encoding: base64\r\n\r\nRGF5LEhvdXJzCk1vbmRheSw5Cg==\r\n",
        "--b\r\nContent-Type: image/png; name=logo.png\r\nContent-Disposition: inline; filename=logo.png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n",
        "--b\r\nContent-Type: application/zip; name=x.zip\r\nContent-Disposition: attachment; filename=x.zip\r\n\r\nPK\u{3}\u{4} broken\r\n--b--\r\n",
    ));

    assert_eq!(
        document.text,
        "Rückgabe\n\nFrom: Jürgen <j@example.com>\nTo: shop@example.com, Ada <ada@example.com>\nDate: 2024-03-04T10:00:00+01:00\n\n\
         Yes, within 30 days.\n\n> May I return it?\n\nhours.csv\n\nDay: Monday\nHours: 9\n\nNot read: x.zip (damaged)."
    );
    assert_eq!(document.title.as_deref(), Some("Rückgabe"));
    assert_eq!(
        document.metadata.published_at.as_deref(),
        Some("2024-03-04T09:00:00Z")
    );
    assert_eq!(document.blocks[5].heading_path, ["Rückgabe", "hours.csv"]);
}

#[test]
fn a_mail_in_html_is_read_as_a_page_and_an_attached_mail_as_a_mail() {
    let document = read(concat!(
        "From: a@example.com\r\nSubject: Fwd\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
        "--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>See below</p><div style=\"display:none\">trap</div>\r\n",
        "--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: b@example.com\r\nSubject: Hours\r\nMessage-ID: <2@example.com>\r\nMIME-Version: 1.0\r\n\r\nDaily.\r\n--b--\r\n",
    ));

    assert!(
        document
            .text
            .starts_with("Fwd\n\nFrom: a@example.com\n\nSee below\n\n"),
        "{}",
        document.text
    );
    assert!(
        document.text.ends_with("Hours\n\nFrom: b@example.com\n\nDaily."),
        "{}",
        document.text
    );
}

#[test]
fn what_outlook_stores_is_read() {
    let mut file = cfb::CompoundFile::create(std::io::Cursor::new(Vec::new())).expect("a new container");
    file.create_storage("/__attach_version1.0_#00000000")
        .expect("a new folder");
    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let mut times = vec![0; 32];
    times.extend([0x40, 0, 0x39, 0, 6, 0, 0, 0]);
    times.extend(133_540_164_000_000_000_u64.to_le_bytes());
    for (path, content) in [
        ("/__properties_version1.0", times),
        ("/__substg1.0_0037001F", utf16("Returns")),
        ("/__substg1.0_0C1A001F", utf16("Ada")),
        ("/__substg1.0_5D01001F", utf16("ada@example.com")),
        ("/__substg1.0_10130102", b"<p>Within <b>30</b> days.</p>".to_vec()),
        (
            "/__attach_version1.0_#00000000/__substg1.0_3707001F",
            utf16("hours.csv"),
        ),
        (
            "/__attach_version1.0_#00000000/__substg1.0_37010102",
            b"Day,Hours\nMonday,9\n".to_vec(),
        ),
    ] {
        let mut stream = file.create_stream(path).expect("a new stream");
        std::io::Write::write_all(&mut stream, &content).expect("written to memory");
    }
    file.flush().expect("written to memory");
    let bytes = file.into_inner().into_inner();

    assert_eq!(Format::detect(&bytes, "a.doc"), Ok(Format::Msg));
    let document =
        crate::extract(&bytes, Format::Msg, &Hints::default(), &Limits::default()).expect("it has text");

    assert_eq!(
        document.text,
        "Returns\n\nFrom: Ada <ada@example.com>\nDate: 2024-03-04T09:00:00Z\n\nWithin 30 days.\n\nhours.csv\n\nDay: Monday\nHours: 9"
    );
}
