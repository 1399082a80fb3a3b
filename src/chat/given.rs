//! Earlier messages that a client gives with its question, of a stateless turn.

use super::store::HistoryMessage;
use crate::error::{Error, Result};
use crate::llm::{PromptRole, tokens};

/// An earlier message, as a client says it was.
pub struct Said {
    pub role: PromptRole,
    pub content: String,
}

/// The latest messages that fit into `limit` tokens together. Counted off the async threads, for a client may give a
/// megabyte, and no further than the limit.
pub(super) async fn count_latest(said: Vec<Said>, limit: usize) -> Result<Vec<HistoryMessage>> {
    tokio::task::spawn_blocking(move || latest(said, limit))
        .await
        .map_err(Error::internal)
}

fn latest(said: Vec<Said>, limit: usize) -> Vec<HistoryMessage> {
    let mut left = limit;
    let mut history = Vec::new();
    for Said { role, content } in said.into_iter().rev() {
        let Some(tokens) = tokens::count_within(&content, left) else {
            break;
        };
        left -= tokens;
        history.push(HistoryMessage {
            role,
            content,
            tokens,
        });
    }
    history.reverse();
    history
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_messages_that_fit_are_counted_and_nothing_before_them() {
        let said = [
            "one",
            "two words",
            "word ".repeat(50).as_str(),
            "three more words",
            "ok",
        ]
        .into_iter()
        .map(|content| Said {
            role: PromptRole::User,
            content: content.to_owned(),
        })
        .collect();

        let history = latest(said, 20);

        let kept: Vec<(&str, usize)> = history
            .iter()
            .map(|message| (message.content.as_str(), message.tokens))
            .collect();
        assert_eq!(kept, [("three more words", 3), ("ok", 1)]);
    }

    #[test]
    fn a_count_within_a_limit_is_the_count_and_past_it_none() {
        let text = "Goods may be returned within thirty days.";
        let tokens = tokens::count(text);

        assert_eq!(tokens::count_within(text, tokens), Some(tokens));
        assert_eq!(tokens::count_within(text, tokens - 1), None);
        assert_eq!(tokens::count_within("", 0), Some(0));
    }
}
