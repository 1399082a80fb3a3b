//! What every index backend must do. Each rule is a function over `&dyn Index` on an empty index of
//! [`DIMENSION`](crate::samples::DIMENSION) values; a backend's tests open one and call [`all`], and
//! [`at_100_000_chunks`] with one that builds graphs for so many.

mod codes;
mod confidence;
mod contents;
mod facets;
mod input;
mod search;
mod walls;

use std::sync::Arc;

use retrieval::index::Index;

/// How far similarities may be from those of vectors as they were given: an index may keep them at half precision.
const HALF_PRECISION: f32 = 1e-3;

/// Runs rules one after the other, naming each: the last one named is the one that failed.
macro_rules! rules {
    ($index:expr, $($room:ident::$rule:ident),+ $(,)?) => {
        $(
            eprintln!("rule: {}", stringify!($rule).replace('_', " "));
            $room::$rule(&*$index).await;
        )+
    };
}

/// Recall@10 among 100,000 chunks, of one tenant and of a thousand; apart from the others, as it takes minutes. They are asked
/// for when `settled` returns.
pub(crate) async fn at_100_000_chunks(index: Arc<dyn Index>, settled: impl AsyncFnOnce()) {
    search::store_100_000(&*index).await;
    settled().await;
    rules!(
        index,
        search::nearest_of_100_000_are_found,
        search::one_of_1_000_tenants_finds_its_nearest,
    );
}

/// Runs every rule, each with tenants of its own, so that one index serves them all. The index is closed afterwards.
pub(crate) async fn all(index: Arc<dyn Index>) {
    rules!(
        index,
        contents::an_unknown_tenant_finds_nothing,
        contents::stored_points_are_found_by_words_and_by_vector,
        contents::a_hit_carries_its_scores,
        contents::an_upsert_replaces_the_whole_point,
        contents::of_repeated_ids_the_last_wins,
        contents::points_without_vector_are_found_by_words,
        contents::deleted_chunks_are_gone,
        contents::deleted_documents_are_gone,
        contents::deleted_sources_are_gone,
        facets::each_facet_is_asked_alone_and_together,
        facets::facets_change_without_the_vectors,
        facets::what_was_said_last_holds_for_the_whole_document,
        facets::any_text_may_be_a_tag_or_a_group,
        facets::points_are_listed_page_by_page,
        walls::filters_let_through_what_they_name,
        walls::empty_filters_find_nothing,
        walls::tenants_with_the_same_chunks_never_touch,
        walls::deleting_a_tenant_leaves_the_others,
        walls::scores_do_not_depend_on_other_tenants,
        walls::each_of_many_tenants_finds_its_own,
        input::a_wrong_dimension_is_refused_and_nothing_is_lost,
        input::values_that_are_no_numbers_are_refused,
        input::texts_of_every_script_are_found,
        input::odd_texts_and_questions_do_no_harm,
        input::limits_are_kept,
        codes::codes_that_nobody_wrote_so_are_found_by_their_parts,
        codes::a_code_that_a_search_may_not_see_keeps_nobody_from_its_parts,
        codes::what_names_a_rare_code_comes_first_among_texts_that_are_alike,
        search::nearest_is_exactly_what_brute_force_finds,
        confidence::what_was_found_inspires_the_same_confidence_everywhere,
    );
    search::writers_and_readers_work_at_once(index.clone()).await;
    rules!(index, search::a_closed_index_says_so);
}
