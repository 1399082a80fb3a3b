//! Pages that say "not found" with a status that says "here it is".
//!
//! A false alarm would drop a page that exists, so only short pages that lead with the phrase count. Sites with words of
//! their own say the same at every address, and are caught as copies of each other.

/// A page that only says that there is none holds little besides.
const MAX_TEXT_CHARS: usize = 1_500;

/// A title of more characters tells a story about missing pages.
const MAX_TITLE_CHARS: usize = 100;

/// What titles and first lines of such pages say, in lower case.
const PHRASES: &[&str] = &[
    "404 error",
    "404 not found",
    "404 page",
    "error 404",
    "http 404",
    "page not found",
    "page cannot be found",
    "page can't be found",
    "page could not be found",
    "page does not exist",
    "page doesn't exist",
    "page no longer exists",
    "page you requested was not found",
    "file not found",
    "seite nicht gefunden",
    "seite wurde nicht gefunden",
    "seite konnte nicht gefunden werden",
    "seite existiert nicht",
    "fehler 404",
    "page introuvable",
    "page non trouvée",
    "erreur 404",
    "página no encontrada",
    "página não encontrada",
    "pagina non trovata",
    "errore 404",
    "pagina niet gevonden",
    "nie znaleziono strony",
    "strona nie została znaleziona",
    "sidan hittades inte",
    "siden blev ikke fundet",
    "sivua ei löytynyt",
    "страница не найдена",
    "сторінку не знайдено",
    "sayfa bulunamadı",
    "ページが見つかりません",
    "页面不存在",
    "找不到页面",
    "페이지를 찾을 수 없습니다",
];

/// Whether a page with this title and text only says that there is no such page.
pub fn looks_missing(title: Option<&str>, text: &str) -> bool {
    if text.chars().nth(MAX_TEXT_CHARS).is_some() {
        return false;
    }
    let first_line = text.lines().map(str::trim).find(|line| !line.is_empty());
    [title, first_line].into_iter().flatten().any(says_missing)
}

fn says_missing(line: &str) -> bool {
    if line.chars().nth(MAX_TITLE_CHARS).is_some() {
        return false;
    }
    let line = line.to_lowercase().replace('\u{2019}', "'");
    // "404" alone, or before a separator: but not a road, a model or a house number.
    let after_number = line.trim().strip_prefix("404").map(str::trim_start);
    let is_bare_number = after_number
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['|', '-', '–', '—', ':', '·', '.']));
    let asks = line.contains('?')
        || line.starts_with("how ")
        || line.starts_with("what ")
        || line.starts_with("why ");
    !asks && (is_bare_number || PHRASES.iter().any(|phrase| line.contains(phrase)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_pages_that_lead_with_the_phrase_are_missing() {
        for (title, text) in [
            (Some("Page not found | Acme"), "Try the search."),
            (Some("404"), "Oops"),
            (Some("404 – Acme"), ""),
            (Some("Acme"), "Seite nicht gefunden\n\nZur Startseite"),
            (None, "This page doesn’t exist."),
            (Some("Erreur 404"), "Retour"),
        ] {
            assert!(looks_missing(title, text), "{title:?} {text:?}");
        }
    }

    #[test]
    fn pages_about_missing_pages_exist() {
        let long = "How servers answer. ".repeat(100);
        for (title, text) in [
            (Some("Page not found: what to do"), long.as_str()),
            (Some("How to fix error 404"), "Clear your cache."),
            (Some("Why do I see \"page not found\"?"), "Because."),
            (Some("Peugeot 404"), "A car."),
            (Some("404 Main Street"), "Our office."),
            (
                Some("Returns"),
                "If an item was not found in your parcel, write to us.",
            ),
            (None, ""),
        ] {
            assert!(!looks_missing(title, text), "{title:?}");
        }
    }
}
