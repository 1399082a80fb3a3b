//! Taking files in: what is accepted, what is refused, and that a refused upload leaves nothing.

mod refusing;
mod taking;

use crate::harness::app::{Chatbot, TestApp};
use crate::harness::stored::{count_rows, stored_files};

/// The head of a picture.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";

/// Nothing of any upload is in rows, jobs or files.
async fn expect_nothing_left(service: &TestApp) {
    assert_eq!(count_rows(service, "document").await, 0);
    assert_eq!(count_rows(service, "job").await, 0);
    assert_eq!(
        stored_files(&service.data_dir()),
        Vec::<std::path::PathBuf>::new()
    );
}

fn path_of(desk: &Chatbot<'_, '_>) -> String {
    format!("/api/chatbots/{}/documents", desk.id)
}
