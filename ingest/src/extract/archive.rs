//! Zip archives of files: every member that can be read, under a heading with its name. Members are read from
//! memory, one at a time, and their names are only shown, so no path leads anywhere.

use super::inside::Inside;
use super::package::Package;
use super::scope::Scope;
use crate::document::{DocumentBuilder, clean_prose};
use crate::{ExtractError, ExtractedDocument};

/// The level of the headings that members' names become.
const NAME_LEVEL: u8 = 1;

/// What systems add to archives unasked.
const JUNK_FOLDERS: [&str; 1] = ["__MACOSX"];
const JUNK_FILES: [&str; 3] = ["Thumbs.db", "desktop.ini", ".DS_Store"];

/// Reads the members in the order of their names.
pub(crate) fn extract(bytes: &[u8], scope: &Scope<'_>) -> Result<ExtractedDocument, ExtractError> {
    let mut package = Package::open(bytes, scope)?;
    let mut builder = DocumentBuilder::new(scope.limits);
    // Of many documents none gives the archive its title.
    builder.title = Some(String::new());
    let mut inside = Inside::default();
    let mut entries = package.entries();
    entries.sort();
    for (name, index) in entries {
        let shown = shown_name(&name);
        if name.ends_with('/') || shown.is_empty() || is_junk(&shown) {
            continue;
        }
        match package.read_entry(index) {
            Ok((_, content)) => inside.add(&shown, &content, NAME_LEVEL, scope, &mut builder),
            // A bomb is refused whole: the next member would only go on.
            Err(error @ ExtractError::TooLarge { .. }) => return Err(error),
            Err(error) => inside.skip(&shown, error),
        }
        if builder.is_full() {
            break;
        }
    }
    inside.finish(&mut builder)?;
    builder.finish()
}

/// A member's path as it is shown: no steps upwards, no drive, no invisible characters.
fn shown_name(name: &str) -> String {
    let name = name.replace('\\', "/");
    let steps = name
        .split('/')
        .filter(|step| !matches!(*step, "" | "." | "..") && !step.ends_with(':'));
    clean_prose(&steps.collect::<Vec<_>>().join("/"))
}

fn is_junk(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    JUNK_FILES.contains(&file)
        || file.starts_with("._")
        || name.split('/').any(|step| JUNK_FOLDERS.contains(&step))
}

#[cfg(test)]
mod tests {
    use crate::extract::package::pack;
    use crate::{ExtractError, ExtractedDocument, Format, Hints, Limits};

    fn read(bytes: &[u8]) -> Result<ExtractedDocument, ExtractError> {
        assert_eq!(Format::detect(bytes, "a.zip"), Ok(Format::Zip));
        crate::extract(bytes, Format::Zip, &Hints::default(), &Limits::default())
    }

    #[test]
    fn members_stand_under_their_names_and_a_broken_one_fails_alone() {
        let archive = pack(&[
            ("b/hours.csv", "Day,Hours\nMonday,9\n"),
            ("a/terms.md", "# Returns\n\nWithin 30 days."),
            ("__MACOSX/a/._terms.md", "junk"),
            ("photo.png", "\u{89}PNG\r\n\0\0"),
            ("cut.pdf", "%PDF-1.4 cut"),
        ]);

        let document = read(&archive).expect("two members have text");

        assert_eq!(
            document.text,
            "a/terms.md\n\nReturns\n\nWithin 30 days.\n\nb/hours.csv\n\nDay: Monday\nHours: 9\n\n\
             Not read: cut.pdf (damaged), photo.png (file type not supported)."
        );
        assert_eq!(document.blocks[2].heading_path, ["a/terms.md", "Returns"]);
        assert_eq!(document.title, None);
    }

    #[test]
    fn names_lead_nowhere() {
        let archive = pack(&[
            ("../../etc/passwd", "One."),
            ("C:\\x\\y.txt", "Two."),
            ("/abs\u{202e}.txt", "Three."),
        ]);

        let document = read(&archive).expect("it has text");

        assert_eq!(
            document.text,
            "etc/passwd\n\nOne.\n\nabs.txt\n\nThree.\n\nx/y.txt\n\nTwo."
        );
    }

    #[test]
    fn archives_in_archives_are_read_to_a_depth() {
        let nest = |depth: usize| {
            (1..depth).fold(pack(&[("t.txt", "Deep.")]), |inner, _| {
                let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
                let options = zip::write::SimpleFileOptions::default();
                writer.start_file("in.zip", options).expect("a new entry");
                std::io::Write::write_all(&mut writer, &inner).expect("written to memory");
                writer.finish().expect("a whole archive").into_inner()
            })
        };

        assert_eq!(
            read(&nest(2)).map(|document| document.text),
            Ok("in.zip\n\nt.txt\n\nDeep.".to_owned())
        );
        assert_eq!(read(&nest(4)).map_err(|error| error.code()), Err("too_large"));
    }

    #[test]
    fn members_share_one_allowance() {
        let blank = " ".repeat(6 << 20);
        let archive = pack(&[("a.txt", &blank), ("b.txt", &blank), ("c.txt", "words")]);

        assert_eq!(read(&archive).map_err(|error| error.code()), Err("too_large"));
    }
}
