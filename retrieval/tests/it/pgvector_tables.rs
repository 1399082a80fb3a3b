//! Which tables the index in PostgreSQL makes, keeps and drops: of other models, of earlier releases and rules, and of those that
//! somebody dropped.

use std::time::Duration;

use retrieval::index::{Index, IndexError, PgvectorIndex, PgvectorOptions};

use crate::pgvector_index::{database, moved, number, open, open_eager, options, run, scans};
use crate::samples::{by_words, chunk, found, point, tenant};

async fn put_one(index: &PgvectorIndex) {
    let points = vec![point(1, "goods")];
    index.upsert(tenant(1), points).await.expect("stored");
}

/// A tenant whose points lie in a table of its own.
async fn put_into_own_table(url: &str) -> PgvectorIndex {
    let index = open_eager(url).await;
    let points = (0..80).map(|n| point(n, "goods"));
    index.upsert(tenant(1), points.collect()).await.expect("stored");
    moved(url).await;
    index
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_somebody_dropped_are_missed_and_made_anew() {
    for table in ["c1_point", "c1_term", "c1_tenant"] {
        let Some(url) = database().await else { return };
        let index = open(&url).await;
        put_one(&index).await;
        index.check().await.expect("all is there");
        let generation = index.generation();

        run(&url, &format!("drop table frontdesk_index.{table} cascade")).await;

        let is_damaged = |done| matches!(done, Err(IndexError::Damaged { .. }));
        assert!(is_damaged(index.check().await), "{table}");
        assert!(
            is_damaged(index.delete_chunks(tenant(1), vec![chunk(1)]).await),
            "{table}"
        );
        index.close().await.expect("closed");
        let index = open(&url).await;
        assert_ne!(index.generation(), generation, "it is to be filled");
        put_one(&index).await;
        assert_eq!(found(&index, tenant(1), by_words("goods")).await, [chunk(1)]);
    }
}

/// How many tables there are of the first making.
const OF_THE_FIRST: &str = "select count(*) from pg_class
                             where relnamespace = 'frontdesk_index'::regnamespace and relname like 'c1\\_%'";

async fn removed(index: &PgvectorIndex, at_least: Duration) -> usize {
    index.remove_former(at_least).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_former_rules_of_words_go_when_those_that_replace_them_are_old_enough() {
    let Some(url) = database().await else { return };
    put_into_own_table(&url).await.close().await.expect("closed");
    let as_of_former_rules =
        "update frontdesk_index.collection set name = regexp_replace(name, '[0-9]+$', '1')";
    run(&url, as_of_former_rules).await;

    for _ in 0..2 {
        let index = open(&url).await;
        assert_eq!(removed(&index, Duration::from_secs(3_600)).await, 0);
        assert!(number(&url, OF_THE_FIRST).await > 5, "others may ask them");
        assert_eq!(index.count(tenant(1)).await.expect("a count"), 0);
        index.close().await.expect("closed");
    }

    let index = open(&url).await;
    put_one(&index).await;
    assert_eq!(removed(&index, Duration::ZERO).await, 1);
    assert_eq!(number(&url, OF_THE_FIRST).await, 0);
    assert_eq!(
        number(&url, "select count(*) from frontdesk_index.collection").await,
        1
    );
    assert_eq!(found(&index, tenant(1), by_words("goods")).await, [chunk(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_at_the_other_precision_go_when_those_that_replace_them_are_old_enough() {
    let Some(url) = database().await else { return };
    put_into_own_table(&url).await.close().await.expect("closed");
    let halfvec = PgvectorOptions {
        halfvec: true,
        ..options(&url)
    };
    let index = PgvectorIndex::open(halfvec).await.expect("opened");
    put_one(&index).await;
    assert_eq!(removed(&index, Duration::from_secs(3_600)).await, 0);
    let of_later_rules = "update frontdesk_index.collection set name = regexp_replace(name, '[0-9]+$', '9999') where number = 1";
    run(&url, of_later_rules).await;
    assert_eq!(removed(&index, Duration::ZERO).await, 0);
    let of_former_rules =
        "update frontdesk_index.collection set name = regexp_replace(name, '[0-9]+$', '1') where number = 1";
    run(&url, of_former_rules).await;

    assert_eq!(removed(&index, Duration::ZERO).await, 1);

    assert_eq!(number(&url, OF_THE_FIRST).await, 0);
    assert_eq!(found(&index, tenant(1), by_words("goods")).await, [chunk(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_dropped_tables_goes_too() {
    let Some(url) = database().await else { return };
    let index = put_into_own_table(&url).await;
    run(&url, "drop table frontdesk_index.c1_term").await;
    index.close().await.expect("closed");

    let index = open(&url).await;
    assert!(number(&url, OF_THE_FIRST).await > 3);
    assert_eq!(removed(&index, Duration::from_secs(3_600)).await, 1);

    assert_eq!(number(&url, OF_THE_FIRST).await, 0);
    put_one(&index).await;
    assert_eq!(found(&index, tenant(1), by_words("goods")).await, [chunk(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_tenants_table_that_somebody_dropped_is_missed_and_all_is_put_in_anew() {
    for drop in [
        "drop table frontdesk_index.c1_own1_rows cascade",
        "drop view frontdesk_index.c1_own1",
    ] {
        let Some(url) = database().await else { return };
        let index = put_into_own_table(&url).await;
        let of_another = (500..580).map(|n| point(n, "goods"));
        index
            .upsert(tenant(2), of_another.collect())
            .await
            .expect("stored");
        moved(&url).await;
        index.check().await.expect("all is there");
        let generation = index.generation().expect("a name");

        run(&url, drop).await;

        let error = index.check().await.expect_err("a table is gone");
        assert!(
            matches!(&error, IndexError::Damaged { reason } if reason.contains("c1_own1")),
            "{error}"
        );
        index.close().await.expect("closed");
        let index = open_eager(&url).await;
        index.check().await.expect("nothing is missed any more");
        assert!(index.has_lost(tenant(1), &generation), "it is to be filled");
        assert_eq!(index.count(tenant(1)).await.expect("a count"), 0);
        assert_eq!(index.count(tenant(2)).await.expect("a count"), 80);
        let points = (0..80).map(|n| point(n, "goods"));
        index.upsert(tenant(1), points.collect()).await.expect("stored");
        moved(&url).await;
        assert_eq!(index.count(tenant(1)).await.expect("a count"), 80);
        index.delete_tenant(tenant(1)).await.expect("deleted");
        index.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_process_gave_anew_is_known_once_it_is_asked_for() {
    let Some(url) = database().await else { return };
    let index = put_into_own_table(&url).await;
    let before = index.generation();
    run(&url, "drop view frontdesk_index.c1_own1").await;
    let other = open(&url).await;
    assert_ne!(other.generation(), before);
    assert_eq!(index.generation(), before);

    index.look_up_generation().await.expect("an answer");

    assert_eq!(index.generation(), other.generation());
    run(&url, "delete from frontdesk_index.collection").await;
    index.look_up_generation().await.expect("an answer");
    assert_eq!(index.generation(), other.generation(), "it has no other name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_an_earlier_release_gets_the_index_of_words_and_answers_as_before() {
    let Some(url) = database().await else { return };
    let index = open_eager(&url).await;
    let text = |n: u64| {
        format!(
            "our goods number {n} {}",
            "oak ".repeat(usize::try_from(n % 4).expect("small"))
        )
    };
    let points = (0..900).map(|n| point(n, &text(n)));
    index.upsert(tenant(1), points.collect()).await.expect("stored");
    moved(&url).await;
    let answers = async |index: &PgvectorIndex| {
        let mut answers = Vec::new();
        for question in ["number 7", "oak goods", "our oak number 31", "nowhere"] {
            answers.push(found(index, tenant(1), by_words(question)).await);
        }
        answers
    };
    let expected = answers(&index).await;
    let generation = index.generation();
    index.close().await.expect("closed");
    assert!(scans(&url, "c1_own1_lexemes").await > 0);
    // As that release made its tables.
    run(
        &url,
        "drop index frontdesk_index.c1_own1_lexemes;
         drop function frontdesk_index.lexemes_of;
         create function frontdesk_index.terms_of(words sparsevec) returns integer[]
             language sql immutable parallel safe
             return string_to_array(regexp_replace(split_part(words::text, '/', 1), ':[^,}]*|[{}]', '', 'g'), ',')::integer[];
         alter table frontdesk_index.c1_own1_rows
             add terms integer[] not null generated always as (frontdesk_index.terms_of(words)) stored;
         create index c1_own1_terms on frontdesk_index.c1_own1_rows using gin (terms);
         drop view frontdesk_index.c1_own1;
         create view frontdesk_index.c1_own1 as select * from frontdesk_index.c1_own1_rows
             where current_setting('frontdesk_index.tenant_id', true) = tenant_id::text;
         grant select, insert, update, delete on frontdesk_index.c1_own1 to frontdesk_index",
    )
    .await;

    let index = open_eager(&url).await;

    assert_eq!(answers(&index).await, expected);
    assert_eq!(index.generation(), generation, "nothing is put in again");
    let points = (900..960).map(|n| point(n, &text(n)));
    index.upsert(tenant(1), points.collect()).await.expect("stored");
    moved(&url).await;
    assert_eq!(
        found(&index, tenant(1), by_words("number 955")).await[0],
        chunk(955)
    );
    index.close().await.expect("closed");
    assert!(scans(&url, "c1_own1_lexemes").await > 0);
    let before = "select count(*) from pg_indexes where indexname = 'c1_own1_terms'";
    assert_eq!(number(&url, before).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_has_tables_of_its_own_and_lost_tables_another_name() {
    let Some(url) = database().await else { return };
    let index = open(&url).await;
    put_one(&index).await;
    let name = index.generation();
    let other = PgvectorIndex::open(PgvectorOptions {
        model_id: Some("other-model"),
        ..options(&url)
    })
    .await
    .expect("opened");
    assert_eq!(other.count(tenant(1)).await.expect("a count"), 0);
    assert_ne!(other.generation(), name);
    assert_eq!(open(&url).await.generation(), name);
    index.close().await.expect("closed");
    other.close().await.expect("closed");

    run(&url, "drop schema frontdesk_index cascade").await;

    let remade = open(&url).await;
    assert_ne!(remade.generation(), name);
    assert_eq!(remade.count(tenant(1)).await.expect("a count"), 0);
}
