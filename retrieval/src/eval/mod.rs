//! How good retrieval is, measured on questions whose right passages are known.
//!
//! A [`TestSet`] is a directory in the layout of BEIR (Thakur and others, NeurIPS 2021), a [`FaqSet`] one of questions to
//! entries. A [`Runner`] puts passages into an index under a tenant of its own, asks every question the way the product does,
//! and takes the tenant away again; entries become a bank ([`crate::faq`]). Reports keep the result of every question, so that
//! two of them can be compared.

mod faq;
mod faq_run;
mod measures;
mod run;
mod set;

pub use self::faq::{FaqEntry, FaqQuestion, FaqSet};
pub use self::faq_run::{FaqReport, FaqResult};
pub use self::measures::{Abstention, Measures, auroc, ndcg, recall, reciprocal_rank};
pub use self::run::{Answering, EvalError, Latency, QuestionResult, Report, Runner};
pub use self::set::{SetDocument, SetError, SetQuestion, TestSet, Wording};
