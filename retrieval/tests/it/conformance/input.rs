//! Odd and wrong input: refused with a reason, or harmless.

use std::collections::BTreeSet;

use retrieval::ChunkId;
use retrieval::index::{Index, IndexError, Point, SearchQuery};

use crate::samples::{DIMENSION, by_vector, by_words, chunk, found, hits, point, tenant, vector};

pub(super) async fn a_wrong_dimension_is_refused_and_nothing_is_lost(index: &dyn Index) {
    let acme = tenant(40);
    index
        .upsert(acme, vec![point(1, "kept text")])
        .await
        .expect("stored");

    let wrong = Point {
        vector: Some(vec![0.5; DIMENSION + 1]),
        ..point(1, "lost text")
    };
    let error = index
        .upsert(acme, vec![point(2, "never stored"), wrong])
        .await
        .expect_err("another model's vector");
    assert!(
        matches!(error, IndexError::DimensionMismatch { expected: DIMENSION, actual } if actual == DIMENSION + 1),
        "{error}"
    );
    let error = index
        .search(acme, by_vector(vec![0.5; 3]))
        .await
        .expect_err("another model's question");
    assert!(
        matches!(error, IndexError::DimensionMismatch { actual: 3, .. }),
        "{error}"
    );

    assert_eq!(found(index, acme, by_words("kept text")).await, [chunk(1)]);
    assert_eq!(found(index, acme, by_words("never stored")).await, []);
    assert_eq!(index.count(acme).await.expect("a count"), 1);
}

pub(super) async fn values_that_are_no_numbers_are_refused(index: &dyn Index) {
    let acme = tenant(41);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vector(1);
        values[3] = bad;
        let stored = index
            .upsert(
                acme,
                vec![Point {
                    vector: Some(values.clone()),
                    ..point(1, "text")
                }],
            )
            .await;
        assert!(matches!(stored, Err(IndexError::Refused { .. })), "{bad}");
        let asked = index.search(acme, by_vector(values)).await;
        assert!(matches!(asked, Err(IndexError::Refused { .. })), "{bad}");
    }
    assert_eq!(index.count(acme).await.expect("a count"), 0);
}

pub(super) async fn texts_of_every_script_are_found(index: &dyn Index) {
    let acme = tenant(42);
    let texts = [
        ("Die Rückgabe der Ware ist binnen 30 Tagen möglich.", "Rückgabe"),
        ("Возврат товара возможен в течение 30 дней.", "возврат"),
        ("您可以在三十天内退货。", "退货"),
        ("商品は30日以内に返品できます。", "返品"),
        ("상품은 30일 이내에 반품할 수 있습니다.", "반품"),
        ("ลูกค้าสามารถคืนสินค้าได้ภายในสามสิบวัน", "คืนสินค้า"),
        ("يمكن إرجاع البضائع خلال ثلاثين يومًا", "البضائع"),
        ("सामान तीस दिनों के भीतर लौटाया जा सकता है", "सामान"),
        ("Emoji 🎁 gift wrapping, part XK-4711/b", "4711"),
    ];
    let points = texts
        .iter()
        .zip(0..)
        .map(|((text, _), n)| point(n, text))
        .collect();
    index.upsert(acme, points).await.expect("stored");

    for ((text, question), n) in texts.iter().zip(0..) {
        assert_eq!(
            found(index, acme, by_words(question)).await,
            [chunk(n)],
            "{question} in {text}"
        );
    }
}

pub(super) async fn odd_texts_and_questions_do_no_harm(index: &dyn Index) {
    let acme = tenant(43);
    let long = "endless ".repeat(20_000);
    let texts = [
        "",
        " \n\t ",
        "!?…",
        "\0\u{feff}\u{202e}",
        "the of and",
        long.as_str(),
    ];
    index
        .upsert(
            acme,
            texts.iter().zip(0..).map(|(text, n)| point(n, text)).collect(),
        )
        .await
        .expect("stored");
    assert_eq!(index.count(acme).await.expect("a count"), texts.len() as u64);

    for question in texts {
        index
            .search(acme, by_words(question))
            .await
            .expect("an answer, if an empty one");
    }
    assert_eq!(found(index, acme, by_words("endless")).await, [chunk(5)]);
    assert_eq!(found(index, acme, by_words("")).await, []);
    let zero = by_vector(vec![0.0; DIMENSION]);
    index
        .search(acme, zero)
        .await
        .expect("a vector without direction is no error");
}

pub(super) async fn limits_are_kept(index: &dyn Index) {
    let acme = tenant(44);
    index
        .upsert(acme, (0..120).map(|n| point(n, "common text")).collect())
        .await
        .expect("stored");

    for limit in [0, 1, 7, 119, 120, 1_000] {
        let query = SearchQuery {
            vector: Some(vector(1)),
            limit,
            ..by_words("common")
        };
        let hits = hits(index, acme, query).await;
        assert_eq!(hits.len(), limit.min(120));
        assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
        let distinct: BTreeSet<ChunkId> = hits.iter().map(|hit| hit.chunk_id).collect();
        assert_eq!(distinct.len(), hits.len());
    }
}
