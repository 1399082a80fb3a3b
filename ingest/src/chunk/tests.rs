use proptest::prelude::*;

use super::*;
use crate::Limits;
use crate::document::DocumentBuilder;

/// Words as tokens, plus two special ones as BERT tokenizers add.
fn words(text: &str) -> usize {
    text.split_whitespace().count() + 2
}

fn build(parts: &[(BlockKind, String)]) -> ExtractedDocument {
    let mut builder = DocumentBuilder::new(&Limits::default());
    for (kind, text) in parts {
        builder.push(kind.clone(), text, None);
    }
    builder.finish().unwrap_or_default()
}

fn options(max_tokens: usize, overlap_tokens: usize) -> ChunkOptions {
    ChunkOptions {
        max_tokens,
        overlap_tokens,
    }
}

fn heading(level: u8, text: &str) -> (BlockKind, String) {
    (BlockKind::Heading { level }, text.to_owned())
}

fn paragraph(text: &str) -> (BlockKind, String) {
    (BlockKind::Paragraph, text.to_owned())
}

#[test]
fn blocks_under_one_heading_share_a_chunk_with_it() {
    let document = build(&[
        heading(1, "Shop"),
        heading(2, "Returns"),
        paragraph("Within thirty days."),
        paragraph("With receipt."),
        heading(2, "Delivery"),
        paragraph("Two days."),
    ]);

    let chunks = chunk(&document, &ChunkOptions::default(), &words);

    let texts: Vec<&str> = chunks.iter().map(|chunk| chunk.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "Shop\n\nReturns\n\nWithin thirty days.\n\nWith receipt.",
            "Delivery\n\nTwo days."
        ]
    );
    assert_eq!(chunks[0].heading_path, ["Shop", "Returns"]);
    assert_eq!(chunks[0].token_count, 7);
    assert_eq!(chunks[1].embedding_text(), "Shop\nDelivery\n\nTwo days.");
}

#[test]
fn a_block_that_is_too_big_is_cut_with_overlap_and_keeps_its_heading() {
    let sentences: String = (0..40)
        .map(|n| format!("Sentence number {n} stands here. "))
        .collect();
    let document = build(&[heading(1, "Long"), paragraph(&sentences)]);

    let chunks = chunk(&document, &options(20, 5), &words);

    assert!(chunks.len() > 8);
    assert!(chunks[0].text.starts_with("Long"));
    assert!(chunks.iter().all(|chunk| chunk.heading_path == ["Long"]));
    assert!(
        chunks.windows(2).all(|pair| pair[1].start < pair[0].end),
        "neighbours overlap"
    );
    assert!(chunks.iter().all(|chunk| words(&chunk.text) <= 22));
}

#[test]
fn rows_carry_the_header_of_their_table() {
    let row = |header: &str, text: &str| {
        (
            BlockKind::TableRow {
                header: Some(header.to_owned()),
            },
            text.to_owned(),
        )
    };
    let document = build(&[
        row("Size | Price", "S | 5"),
        row("Size | Price", "M | 6"),
        row("Day | Hours", "Mon | 9-5"),
    ]);

    let chunks = chunk(&document, &ChunkOptions::default(), &words);

    assert_eq!(chunks.len(), 2);
    assert_eq!(chunks[0].text, "S | 5\nM | 6");
    assert_eq!(chunks[0].embedding_text(), "Size | Price\nS | 5\nM | 6");
    assert_eq!(chunks[1].table_header.as_deref(), Some("Day | Hours"));
    assert_eq!(chunks[1].heading().as_deref(), Some("Day | Hours"));
}

#[test]
fn records_stand_alone_unless_there_are_very_many() {
    let records = |count: usize| -> ExtractedDocument {
        let record = |number: usize| {
            (
                BlockKind::TableRow { header: None },
                format!("name: {number}\nprice: 1"),
            )
        };
        build(&(0..count).map(record).collect::<Vec<_>>())
    };

    assert_eq!(chunk(&records(2), &ChunkOptions::default(), &words).len(), 2);
    assert_eq!(
        chunk(&records(5_500), &ChunkOptions::default(), &words).len(),
        100
    );
}

#[test]
fn a_megabyte_on_one_line_is_cut_in_linear_time() {
    let line = "x".repeat(1 << 20);
    let document = build(&[paragraph(&line)]);
    let counted = std::cell::Cell::new(0_usize);
    let count = |text: &str| {
        counted.set(counted.get() + text.len());
        text.len().div_ceil(4)
    };

    let chunks = chunk(&document, &ChunkOptions::default(), &count);

    assert!(chunks.iter().all(|chunk| chunk.token_count <= 220));
    assert!(counted.get() < 16 << 20, "counted {} bytes", counted.get());
    assert_covered(&document, &chunks);
}

#[test]
fn code_is_cut_between_lines_and_what_is_not_cut_is_not_repeated() {
    let lines: Vec<String> = (0..30)
        .map(|n| format!("let number_{n} = compute(of, {n});"))
        .collect();
    let document = build(&[
        paragraph("An example of numbers."),
        (BlockKind::Code, lines.join("\n")),
        (BlockKind::ListItem, "First of two.".to_owned()),
        (BlockKind::ListItem, "Second of two.".to_owned()),
    ]);

    let chunks = chunk(&document, &options(24, 0), &words);

    let code: Vec<&str> = chunks
        .iter()
        .map(|chunk| chunk.text.as_str())
        .filter(|text| text.starts_with("let number_"))
        .collect();
    assert!(code.len() > 3);
    for text in code {
        assert!(
            text.lines().all(|line| lines.iter().any(|whole| whole == line)),
            "{text:?}"
        );
    }
    let last = chunks.last().map(|last| last.text.as_str());
    assert_eq!(last, Some("First of two.\nSecond of two."));
}

fn assert_exact(document: &ExtractedDocument, chunks: &[Chunk]) {
    let chars: Vec<char> = document.text.chars().collect();
    for chunk in chunks {
        let span: String = chars[chunk.start..chunk.end].iter().collect();
        assert_eq!(chunk.text, span);
    }
}

fn assert_covered(document: &ExtractedDocument, chunks: &[Chunk]) {
    let mut covered = vec![false; document.text.chars().count()];
    for chunk in chunks {
        covered[chunk.start..chunk.end].fill(true);
    }
    for (position, c) in document.text.chars().enumerate() {
        assert!(
            covered[position] || c.is_whitespace(),
            "character {position} {c:?} is in no chunk"
        );
    }
}

fn any_kind() -> impl Strategy<Value = BlockKind> {
    prop_oneof![
        (1_u8..=6).prop_map(|level| BlockKind::Heading { level }),
        Just(BlockKind::Paragraph),
        Just(BlockKind::ListItem),
        Just(BlockKind::Code),
        "[a-c]{0,2}".prop_map(|text| BlockKind::TableRow {
            header: (!text.is_empty()).then_some(text)
        }),
    ]
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zäß .\n]{1,200}",
        "\\PC{1,80}",
        "[日本語。 ]{1,120}",
        "[a-z]{1,6}( [a-z]{1,6}){0,90}",
    ]
}

/// Parts a document before each of the blocks at `cuts`.
fn parts_of(document: &ExtractedDocument, cuts: &[usize]) -> Vec<ExtractedDocument> {
    let chars: Vec<char> = document.text.chars().collect();
    let mut bounds: Vec<usize> = cuts
        .iter()
        .map(|cut| cut % document.blocks.len())
        .filter(|cut| *cut > 0)
        .collect();
    bounds.sort_unstable();
    bounds.dedup();
    bounds.push(document.blocks.len());
    let (mut first, mut parts) = (0, Vec::new());
    for bound in bounds {
        let start = if first == 0 {
            0
        } else {
            document.blocks[first].start
        };
        let end = document
            .blocks
            .get(bound)
            .map_or(chars.len(), |block| block.start);
        let mut blocks = document.blocks[first..bound].to_vec();
        for block in &mut blocks {
            block.start -= start;
            block.end -= start;
        }
        parts.push(ExtractedDocument {
            text: chars[start..end].iter().collect(),
            blocks,
            ..ExtractedDocument::default()
        });
        first = bound;
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_equal_the_source_at_their_spans_and_cover_it(
        parts in prop::collection::vec((any_kind(), any_text()), 1..12),
        max_tokens in 1_usize..60,
        overlap_tokens in 0_usize..40,
        by_word in any::<bool>(),
    ) {
        let document = build(&parts);
        let count = |text: &str| if by_word { words(text) } else { text.chars().count().div_ceil(3) };

        let chunks = chunk(&document, &options(max_tokens, overlap_tokens), &count);

        assert_exact(&document, &chunks);
        assert_covered(&document, &chunks);
        prop_assert!(chunks.windows(2).all(|pair| pair[0].start < pair[1].start));
        if by_word {
            let worst = chunks.iter().map(|chunk| words(&chunk.text) - 2).max().unwrap_or(0);
            prop_assert!(worst <= max_tokens.max(1), "{worst} over {max_tokens}");
        }
    }

    #[test]
    fn chunks_of_parts_equal_the_source_at_their_spans_and_cover_it(
        parts in prop::collection::vec((any_kind(), any_text()), 1..12),
        cuts in prop::collection::vec(0_usize..12, 0..4),
        max_tokens in 1_usize..60,
    ) {
        let document = build(&parts);
        prop_assume!(!document.blocks.is_empty());
        let mut chunker = Chunker::new(options(max_tokens, 4));

        let chunks: Vec<Chunk> = parts_of(&document, &cuts)
            .iter()
            .flat_map(|part| chunker.chunk(part, &words))
            .collect();

        assert_exact(&document, &chunks);
        assert_covered(&document, &chunks);
        prop_assert_eq!(chunker.chars(), document.text.chars().count());
    }
}
