//! What comes through, what is refused, and what is left unread.

use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt as _;
use proptest::prelude::*;

use super::*;

/// `reads` as a body, and what is known of it.
fn watched(reads: Vec<Vec<u8>>) -> (WatchedBody, Arc<Reading>) {
    let reading = Arc::new(Reading::default());
    let reads = futures::stream::iter(reads.into_iter().map(Ok::<_, BoxError>));
    let body = WatchedBody::new(reqwest::Body::wrap_stream(reads), Arc::clone(&reading));
    (body, reading)
}

/// Everything that the reader gets, and how the body ended.
async fn read(reads: Vec<Vec<u8>>) -> (String, BodyEnd) {
    let (mut body, reading) = watched(reads);
    let mut text = String::new();
    while let Some(Ok(frame)) = body.frame().await {
        let piece = frame.into_data().expect("data");
        text.push_str(std::str::from_utf8(&piece).expect("whole characters"));
        reading.wait(Waker::noop());
    }
    let end = reading.take_end();
    (text, end)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

#[tokio::test]
async fn a_byte_order_mark_is_left_out_however_it_comes() {
    for cut in 0..4 {
        let (first, second) = b"\xEF\xBB\xBFdata: a\n\n".split_at(cut);

        let (text, end) = read(vec![first.to_vec(), second.to_vec()]).await;

        assert_eq!(text, "data: a\n\n");
        assert!(matches!(end, BodyEnd::Proper { in_event: false }), "{end:?}");
    }
}

#[tokio::test]
async fn what_is_not_text_is_refused_after_the_text_before_it() {
    let (text, end) = read(vec![
        b"data: a\n\ndata: \xFF\n\n".to_vec(),
        b"data: b\n\n".to_vec(),
    ])
    .await;

    assert_eq!(text, "data: a\n\ndata: ");
    assert!(
        matches!(&end, BodyEnd::Refused(error) if error.code() == "model_unreadable"),
        "{end:?}"
    );
}

#[tokio::test]
async fn an_event_has_a_limit_and_a_stream_of_events_a_higher_one() {
    let endless = vec![vec![b'x'; 64 * 1024]; 2 * MAX_EVENT_BYTES / (64 * 1024)];
    let lines = vec![b"data: xxxxxxxx\r\n".repeat(4096); 2 * MAX_EVENT_BYTES / (64 * 1024)];
    for reads in [endless, lines] {
        let (text, end) = read(reads).await;

        assert!(text.len() <= MAX_EVENT_BYTES, "{}", text.len());
        assert!(matches!(end, BodyEnd::Refused(_)), "{end:?}");
    }
    for blank in ["\n\n", "\r\n\r\n"] {
        let event = format!("data: x{blank}").into_bytes();
        let reads: Vec<Vec<u8>> = vec![event.repeat(MAX_EVENT_BYTES / 8); 4];
        let size: usize = reads.iter().map(Vec::len).sum();

        let (text, end) = read(reads).await;

        assert_eq!(text.len(), size);
        assert!(matches!(end, BodyEnd::Proper { in_event: false }), "{end:?}");
    }
}

#[tokio::test]
async fn an_event_that_has_not_ended_is_ended_with_its_body() {
    for (reads, expected) in [
        (&b"data: a\n\ndata: b"[..], "data: a\n\ndata: b\n\n"),
        (b"data: b\n", "data: b\n\n\n"),
        (b"data: \xE2\x82", "data: \n\n"),
    ] {
        let (text, end) = read(vec![reads.to_vec()]).await;

        assert_eq!(text, expected);
        assert!(matches!(end, BodyEnd::Proper { in_event: true }), "{end:?}");
    }
}

#[tokio::test]
async fn little_is_read_ahead_of_a_listener_who_is_busy_and_all_once_it_listens() {
    const READ: usize = 1024;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let reads = futures::stream::repeat_with(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok::<_, BoxError>(b"data: a\n".repeat(READ / 8))
    });
    let reading = Arc::new(Reading::default());
    let mut body = WatchedBody::new(
        reqwest::Body::wrap_stream(futures::StreamExt::take(reads, 1000)),
        Arc::clone(&reading),
    );
    let mut context = Context::from_waker(Waker::noop());

    while Pin::new(&mut body).poll_frame(&mut context).is_ready() {}

    let ahead = asked.load(Ordering::Relaxed) * READ;
    assert!(
        (MAX_AHEAD_BYTES..MAX_AHEAD_BYTES + 4 * READ).contains(&ahead),
        "{ahead} bytes"
    );
    reading.wait(Waker::noop());
    assert!(
        Pin::new(&mut body).poll_frame(&mut context).is_ready(),
        "a listener who waits gets more"
    );
}

proptest! {
    #[test]
    fn where_reads_are_cut_does_not_matter(
        text in "(data: [a-z\u{e9}\u{20AC}\u{1F600}]{0,9}(\n|\r\n)|\n|: x\n){0,12}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let reads = cuts.windows(2).map(|pair| text.as_bytes()[pair[0]..pair[1]].to_vec()).collect();

        let (passed_on, end) = run(read(reads));

        let expected = if matches!(end, BodyEnd::Proper { in_event: true }) { format!("{text}\n\n") } else { text };
        prop_assert_eq!(passed_on, expected);
    }

    #[test]
    fn no_bytes_do_harm(reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
        run(read(reads));
    }
}
