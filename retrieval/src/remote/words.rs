//! What a vendor says when it refuses, as far as the operator's log may have it: cut, without keys and without the texts that
//! were sent. Nobody else hears it.

use serde::Deserialize;

/// Characters that are kept.
const KEPT_CHARS: usize = 300;

/// What stands for a key.
const MASK: &str = "…";

/// Words that begin so are keys, whatever follows.
const KEY_BEGINNINGS: &[&str] = &[
    "sk-", "pk-", "rk-", "pa-", "key-", "hf_", "gsk_", "jina_", "xai-", "AIza", "eyJ",
];

/// Letters and digits in a row of which a word is a key: if there are both, and if there are letters alone.
const MIXED_RUN: usize = 16;
const LETTER_RUN: usize = 24;

/// What was sent is told again by so many bytes of it in a row.
const QUOTED_BYTES: usize = 12;

#[derive(Deserialize)]
struct Failure {
    #[serde(alias = "detail", alias = "message")]
    error: FailureDetail,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FailureDetail {
    Full { message: String },
    Short(String),
}

/// The explanation in `body`, the answer to `sent`, for the log; none: there is none, or it repeats what was sent.
pub(super) fn for_log(body: &[u8], sent: &[u8], api_key: Option<&str>) -> Option<String> {
    let failure: Failure = serde_json::from_slice(body).ok()?;
    let (FailureDetail::Full { message } | FailureDetail::Short(message)) = failure.error;
    // Before anything is cut: half a key is no longer known as one.
    let masked = masked(&message, api_key);
    let plain: String = masked.chars().filter(|c| !c.is_control()).collect();
    let kept: String = plain.chars().take(KEPT_CHARS).collect();
    let repeats = repeats(&kept, &String::from_utf8_lossy(sent));
    (!repeats).then_some(kept)
}

/// `message` without the configured key and without what looks like one.
fn masked(message: &str, api_key: Option<&str>) -> String {
    let message = match api_key {
        Some(key) if !key.is_empty() => message.replace(key, MASK),
        _ => message.to_owned(),
    };
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || "-_+/=~.*".contains(c);
    let mut masked = String::with_capacity(message.len());
    let mut follows_bearer = false;
    let mut rest = message.as_str();
    while let Some(first) = rest.chars().next() {
        let end = rest
            .find(|c: char| is_of_word(c) != is_of_word(first))
            .unwrap_or(rest.len());
        let (part, behind) = rest.split_at(end);
        rest = behind;
        if !is_of_word(first) {
            masked.push_str(part);
            continue;
        }
        let is_key = follows_bearer || is_like_a_key(part);
        masked.push_str(if is_key { MASK } else { part });
        follows_bearer = part.eq_ignore_ascii_case("bearer") || part.eq_ignore_ascii_case("basic");
    }
    masked
}

fn is_like_a_key(word: &str) -> bool {
    if KEY_BEGINNINGS.iter().any(|beginning| word.starts_with(beginning)) {
        return true;
    }
    word.split(|c: char| !c.is_ascii_alphanumeric()).any(|run| {
        let has_digit = run.bytes().any(|byte| byte.is_ascii_digit());
        let has_letter = run.bytes().any(|byte| byte.is_ascii_alphabetic());
        run.len() >= LETTER_RUN || (run.len() >= MIXED_RUN && has_digit && has_letter)
    })
}

/// Whether some words of `told` stand in `sent` just so. One word alone, as the name of a model, is nobody's text, where spaces
/// part words.
fn repeats(told: &str, sent: &str) -> bool {
    told.char_indices().any(|(start, _)| {
        let rest = &told[start..];
        let mut ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
        ends.find(|at| *at >= QUOTED_BYTES).is_some_and(|end| {
            let part = &rest[..end];
            (part.trim().contains(' ') || !part.is_ascii()) && sent.contains(part)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> Option<String> {
        for_log(body.as_bytes(), b"", None)
    }

    #[test]
    fn an_explanation_is_found_wherever_it_stands() {
        for body in [
            r#"{"error": {"message": "no such model"}}"#,
            r#"{"error": "no such model", "error_type": "Validation"}"#,
            r#"{"message": "no such model"}"#,
            r#"{"detail": "no such model"}"#,
        ] {
            assert_eq!(told(body).as_deref(), Some("no such model"), "{body}");
        }
        assert_eq!(told("<html>"), None);
    }

    #[test]
    fn keys_are_masked_and_names_of_models_are_not() {
        for (message, expected) in [
            ("Incorrect key: sk-test-SECRET-abcd.", "Incorrect key: …"),
            ("key sk-proj********wxyz is wrong", "key … is wrong"),
            ("Bearer abc is unknown", "Bearer … is unknown"),
            ("no 0a1b2c3d4e5f60718293a4b5c6d7e8f9 here", "no … here"),
            ("no abcdefghijklmnopqrstuvwxyz here", "no … here"),
            ("it is my-own here", "it is … here"),
            ("no text-embedding-3-small", "no text-embedding-3-small"),
            ("no BAAI/bge-small-en-v1.5", "no BAAI/bge-small-en-v1.5"),
        ] {
            assert_eq!(masked(message, Some("my-own")), expected);
        }
    }

    #[test]
    fn what_is_cut_shows_no_part_of_a_key() {
        let message = format!("{} sk-test-SECRET-abcd", "a b ".repeat(74));
        let body = serde_json::json!({ "error": message }).to_string();

        let told = told(&body).expect("an explanation");

        assert!(
            told.chars().count() <= KEPT_CHARS && !told.contains("sk-"),
            "{told}"
        );
    }

    #[test]
    fn what_was_sent_is_not_told_again() {
        let sent = r#"{"model": "text-embedding-3-small", "input": ["My card has the number 4711 and was stolen."]}"#;
        let told = |message: &str| {
            let body = serde_json::json!({ "error": message }).to_string();
            for_log(body.as_bytes(), sent.as_bytes(), None)
        };

        assert_eq!(told("cannot read: My card has the number 4711 and was"), None);
        assert!(told("the model text-embedding-3-small does not exist").is_some());
        let sent = r#"{"input": ["客户的银行卡号在这里,请勿外传。"]}"#;
        let body =
            serde_json::json!({ "error": "cannot embed: 客户的银行卡号在这里,请勿外传。" }).to_string();
        assert_eq!(for_log(body.as_bytes(), sent.as_bytes(), None), None);
    }
}
