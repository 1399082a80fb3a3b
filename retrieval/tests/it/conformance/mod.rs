//! What every index backend must do. Each rule is a function over `&dyn Index` on an empty index of
//! [`DIMENSION`](crate::samples::DIMENSION) values; a backend's tests call [`all`].

mod contents;
mod input;
mod search;
mod walls;

use std::sync::Arc;

use retrieval::index::Index;

/// Recall@10 of a tenant with 100,000 chunks; apart from the others, as it takes minutes.
pub(crate) async fn at_100_000_chunks(index: &dyn Index) {
    search::nearest_of_100_000_are_found(index).await;
}

/// Runs every rule, each with tenants of its own, so that one index serves them all.
pub(crate) async fn all(index: Arc<dyn Index>) {
    contents::an_unknown_tenant_finds_nothing(&*index).await;
    contents::stored_points_are_found_by_words_and_by_vector(&*index).await;
    contents::a_hit_carries_its_scores(&*index).await;
    contents::an_upsert_replaces_the_whole_point(&*index).await;
    contents::of_repeated_ids_the_last_wins(&*index).await;
    contents::points_without_vector_are_found_by_words(&*index).await;
    contents::deleted_chunks_are_gone(&*index).await;
    contents::deleted_documents_are_gone(&*index).await;
    contents::deleted_sources_are_gone(&*index).await;
    walls::filters_let_through_what_they_name(&*index).await;
    walls::empty_filters_find_nothing(&*index).await;
    walls::tenants_with_the_same_chunks_never_touch(&*index).await;
    walls::deleting_a_tenant_leaves_the_others(&*index).await;
    walls::scores_do_not_depend_on_other_tenants(&*index).await;
    walls::each_of_many_tenants_finds_its_own(&*index).await;
    input::a_wrong_dimension_is_refused_and_nothing_is_lost(&*index).await;
    input::values_that_are_no_numbers_are_refused(&*index).await;
    input::texts_of_every_script_are_found(&*index).await;
    input::odd_texts_and_questions_do_no_harm(&*index).await;
    input::limits_are_kept(&*index).await;
    search::nearest_is_exactly_what_brute_force_finds(&*index).await;
    search::writers_and_readers_work_at_once(index.clone()).await;
    search::a_closed_index_says_so(&*index).await;
}
