//! Files, folders, changes and tokens, with all that can go wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use ingest::loader::drive::{Change, DriveError, Grant, Scope, Tree};

use crate::fake::{self, Content, FakeDrive, Fault};
use crate::{drive, drive_with, endpoint, found, read, scope, settle};

#[tokio::test]
async fn a_folder_is_listed_over_all_pages_with_all_fields() {
    let fake = FakeDrive::start().await;
    let root = fake.folder("Root", &[]);
    let ids: Vec<String> = (0..10)
        .map(|n| fake.text(&format!("f{n}.txt"), &[&root], "text"))
        .collect();
    fake.text("elsewhere.txt", &[], "not here");

    let mut files = drive(&fake).list_folder(&root, None).await.expect("a list");

    files.sort_by_key(|file| ids.iter().position(|id| *id == file.id));
    assert_eq!(
        files.iter().map(|file| &file.id).collect::<Vec<_>>(),
        ids.iter().collect::<Vec<_>>()
    );
    assert_eq!(fake.requests("list"), 4);
    for file in files {
        assert!(
            file.md5.is_some() && file.size_bytes == Some(4) && file.parents == [root.clone()],
            "{file:?}"
        );
    }
}

#[tokio::test]
async fn content_comes_as_it_is_or_in_the_form_that_keeps_most() {
    let fake = FakeDrive::start().await;
    let text = fake.text("a.txt", &[], "Plain words.");
    let document = fake.document("Returns", &[], "Goods may be returned.");
    let huge = fake.add(
        "Album",
        &[],
        Content::HugeDocument("Words between pictures.".to_owned()),
    );
    let drive = drive(&fake);

    assert_eq!(
        read(&drive, &text).await,
        Ok(("a.txt".to_owned(), b"Plain words.".to_vec()))
    );
    let (name, bytes) = read(&drive, &document).await.expect("an export");
    assert_eq!(name, "Returns.docx");
    let read_back = ingest::extract(
        &bytes,
        ingest::Format::Docx,
        &ingest::Hints::default(),
        &ingest::Limits::default(),
    );
    assert_eq!(
        read_back.expect("a Word file").text.trim(),
        "Goods may be returned."
    );
    let (name, bytes) = read(&drive, &huge).await.expect("an export");
    assert_eq!(name, "Album.txt");
    assert!(String::from_utf8_lossy(&bytes).contains("between pictures"));
}

#[tokio::test]
async fn what_has_no_text_or_may_not_be_taken_out_says_so() {
    let fake = FakeDrive::start().await;
    let form = fake.add("Poll", &[], Content::Form);
    let locked = fake.text("locked.txt", &[], "secret");
    fake.allow_download(&locked, false);
    let large = fake.text("large.txt", &[], &"x".repeat(1_000_001));
    let drive = drive(&fake);

    for (id, code) in [
        (&form, "unsupported_type"),
        (&locked, "not_downloadable"),
        (&large, "too_large"),
    ] {
        let error = read(&drive, id).await.expect_err("refused");
        assert_eq!(error.code(), code, "{error}");
    }
    assert_eq!(fake.transfers(), 0, "nothing is asked for in vain");
    assert_eq!(read(&drive, "never-was").await, Err(DriveError::NotFound));
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_stood() {
    let fake = FakeDrive::start().await;
    let content = "0123456789".repeat(5_000);
    let id = fake.text("long.txt", &[], &content);
    let drive = drive(&fake);
    fake.fail("media", 1, Fault::CutAfter(20_000));
    fake.fail("media", 1, Fault::CutAfter(0));
    fake.fail("media", 1, Fault::CutAfter(10_000));

    let (_, bytes) = read(&drive, &id).await.expect("the whole file");
    assert_eq!(bytes, content.as_bytes());
    assert_eq!(fake.requests("media"), 4);

    fake.fail("media", 1, Fault::CutAfter(20_000));
    fake.fail("media", 1, Fault::IgnoreRange);
    let (_, bytes) = read(&drive, &id)
        .await
        .expect("from a server that knows no ranges");
    assert_eq!(bytes, content.as_bytes());
}

#[tokio::test]
async fn bytes_that_are_not_those_of_the_file_are_not_taken() {
    let fake = FakeDrive::start().await;
    let id = fake.text("a.txt", &[], "Ninety days.");
    let drive = drive(&fake);
    let before = drive.file(&id).await.expect("a file");

    fake.fail("media", 1, Fault::Spoil);
    assert_eq!(read(&drive, &id).await, Err(DriveError::Changed));

    // Rewritten between the look and the download.
    fake.write(&id, "Thirty days.");
    let mut download = drive.open(&before, 1_000).await.expect("it begins");
    let outcome = loop {
        match download.next().await {
            Ok(Some(_)) => {}
            outcome => break outcome,
        }
    };
    assert_eq!(outcome, Err(DriveError::Changed));
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_and_one_that_stays_is_reported() {
    let fake = FakeDrive::start().await;
    let id = fake.text("a.txt", &[], "x");
    let drive = drive(&fake);
    let limited = |reason, retry_after| Fault::Forbidden { reason, retry_after };

    fake.fail("get", 2, limited("userRateLimitExceeded", None));
    fake.fail("get", 1, limited("rateLimitExceeded", Some(0)));
    assert!(drive.file(&id).await.is_ok());

    fake.fail("get", 1, Fault::Status(503));
    fake.fail("get", 1, Fault::Status(429));
    assert!(drive.file(&id).await.is_ok());

    fake.fail("get", 4, limited("userRateLimitExceeded", None));
    let error = drive.file(&id).await.expect_err("it stays");
    assert_eq!(error.code(), "rate_limited");

    // Nobody sits through a long pause: the caller comes back later.
    fake.fail("get", 1, limited("userRateLimitExceeded", Some(300)));
    let error = drive.file(&id).await.expect_err("a long pause");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(300)));
}

#[tokio::test]
async fn an_access_token_is_shared_renewed_in_time_and_renewed_once_when_it_is_refused() {
    let fake = FakeDrive::start().await;
    let id = fake.text("a.txt", &[], "x");
    let drive = drive(&fake);

    let all = futures::future::join_all((0..8).map(|_| drive.file(&id))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(fake.requests("token"), 1, "eight askers share one token");

    fake.advance(3_550);
    drive
        .file(&id)
        .await
        .expect("a token's last minute is not waited for");
    assert_eq!(fake.requests("token"), 2);

    fake.end_access_tokens();
    drive
        .file(&id)
        .await
        .expect("a token that ended early is replaced");
    assert_eq!(fake.requests("token"), 3);

    fake.forget_requests();
    fake.fail("get", 9, Fault::Status(401));
    assert_eq!(drive.file(&id).await, Err(DriveError::AccessWithdrawn));
    assert_eq!(fake.requests("token"), 1, "one fresh token, not a storm of them");
}

#[tokio::test]
async fn withdrawn_access_is_told_from_an_endpoint_that_does_not_answer() {
    let fake = FakeDrive::start().await;
    let id = fake.text("a.txt", &[], "x");

    fake.fail("token", 1, Fault::Status(503));
    assert!(
        drive(&fake).file(&id).await.is_ok(),
        "a short outage is waited out"
    );
    fake.fail("token", 3, Fault::Status(503));
    assert_eq!(
        drive(&fake).file(&id).await.expect_err("an outage").code(),
        "drive_unavailable"
    );

    fake.withdraw_access(true);
    assert_eq!(drive(&fake).file(&id).await, Err(DriveError::AccessWithdrawn));
    let consent = drive_with(&fake, Grant::RefreshToken(fake.refresh_token()));
    assert_eq!(consent.file(&id).await, Err(DriveError::AccessWithdrawn));
}

#[tokio::test]
async fn a_persons_consent_opens_the_drive_until_it_is_revoked() {
    let fake = FakeDrive::start().await;
    let id = fake.text("a.txt", &[], "x");
    let refresh_token = fake.refresh_token();
    let drive = drive_with(&fake, Grant::RefreshToken(refresh_token.clone()));

    assert_eq!(drive.account().await.as_deref(), Ok(fake::EMAIL));
    assert!(drive.file(&id).await.is_ok());
    endpoint(&fake).revoke(&refresh_token).await.expect("revoked");
    assert_eq!(drive.file(&id).await, Err(DriveError::AccessWithdrawn));
    endpoint(&fake)
        .revoke(&refresh_token)
        .await
        .expect("revoking twice is fine");
}

#[tokio::test]
async fn a_list_that_is_not_whole_is_no_list() {
    let fake = FakeDrive::start().await;
    let root = fake.folder("Root", &[]);
    for n in 0..7 {
        fake.text(&format!("{n}.txt"), &[&root], "x");
    }
    let drive = drive(&fake);

    fake.fail("list", 1, Fault::Incomplete);
    assert_eq!(drive.list_folder(&root, None).await, Err(DriveError::Incomplete));

    fake.fail("list", 1, Fault::BadPageToken);
    assert_eq!(drive.list_folder(&root, None).await.expect("begun anew").len(), 7);
    fake.fail("list", 2, Fault::BadPageToken);
    assert_eq!(drive.list_folder(&root, None).await, Err(DriveError::Incomplete));
}

#[tokio::test]
async fn changes_are_told_once_with_the_present_state_until_the_token_is_too_old() {
    let fake = FakeDrive::start().await;
    let root = fake.folder("Root", &[]);
    let kept = fake.text("kept.txt", &[&root], "one");
    let deleted = fake.text("deleted.txt", &[&root], "x");
    let drive = drive(&fake);
    let token = drive.start_page_token(None).await.expect("a token");
    fake.write(&kept, "two");
    fake.delete(&deleted);
    fake.write(&kept, "three");
    for n in 0..5 {
        fake.text(&format!("{n}.txt"), &[&root], "new");
    }

    let (mut next, mut told) = (Some(token.clone()), BTreeMap::new());
    while let Some(token) = next {
        let page = drive.list_changes(&token, None).await.expect("a page");
        assert!(page.next.is_some() != page.new_start.is_some());
        for change in page.changes {
            let (id, is_removed) = match change {
                Change::Removed { id } => (id, true),
                Change::Present(file) => (file.id, false),
            };
            assert_eq!(told.insert(id, is_removed), None);
        }
        next = page.next;
    }
    assert_eq!(told.len(), 7);
    assert_eq!((told[&kept], told[&deleted]), (false, true));

    fake.expire_change_tokens();
    assert_eq!(
        drive.list_changes(&token, None).await,
        Err(DriveError::PageTokenExpired)
    );
}

#[tokio::test]
async fn scope_is_what_lies_below_the_folder_and_what_its_shortcuts_point_at() {
    let fake = FakeDrive::start().await;
    let root = fake.folder("Root", &[]);
    let inner = fake.folder("Inner", &[&root]);
    let here = fake.text("here.txt", &[&root], "x");
    let deep = fake.text("deep.txt", &[&inner], "x");
    let both = fake.text("both.txt", &[&root, &inner], "x");
    let outside = fake.folder("Outside", &[]);
    let pointed = fake.text("pointed.txt", &[&outside], "x");
    let beside = fake.text("beside.txt", &[&outside], "x");
    fake.shortcut("to a file", &[&root], &pointed);
    // A folder that points at the root: a circle.
    fake.shortcut("back up", &[&inner], &root);
    let gone = fake.text("gone.txt", &[], "x");
    fake.shortcut("to nothing", &[&root], &gone);
    fake.delete(&gone);

    let mut tree = Tree::new(scope(&root), []);
    settle(&drive(&fake), &mut tree).await.expect("it ends");

    let mut expected = vec![here, deep, both, pointed];
    expected.sort();
    assert_eq!(found(&tree), expected);
    assert!(!found(&tree).contains(&beside.as_str()));
}

#[tokio::test]
async fn a_shared_drive_is_read_with_its_own_lists() {
    let fake = FakeDrive::start().await;
    let shared = fake.shared_drive("Team");
    let folder = fake.folder("Inner", &[&shared]);
    let file = fake.text("a.txt", &[&folder], "x");
    let drive = drive(&fake);

    let mut tree = Tree::new(scope(&shared), []);
    settle(&drive, &mut tree).await.expect("listed");

    assert_eq!(found(&tree), [file.as_str()]);
    assert_eq!(tree.followed_drive(), Some(shared.as_str()));
    assert!(read(&drive, &file).await.is_ok());
}

#[tokio::test]
async fn a_lost_folder_is_reported_and_a_lost_file_is_gone() {
    let fake = FakeDrive::start().await;
    let root = fake.folder("Root", &[]);
    let (one, two) = (
        fake.text("one.txt", &[&root], "x"),
        fake.text("two.txt", &[], "x"),
    );
    let drive = drive(&fake);
    let scope = Scope {
        folders: vec![root.clone()],
        files: vec![one.clone(), two.clone()],
    };
    let mut tree = Tree::new(scope, []);
    settle(&drive, &mut tree).await.expect("listed");
    assert_eq!(found(&tree).len(), 2);

    fake.delete(&two);
    tree.doubt_roots();
    settle(&drive, &mut tree).await.expect("listed");
    assert_eq!(found(&tree), [one.as_str()]);
    assert_eq!(tree.lost_folders().count(), 0);

    fake.share(&root, false);
    tree.doubt_roots();
    settle(&drive, &mut tree).await.expect("listed");
    assert_eq!(tree.lost_folders().collect::<Vec<_>>(), [root.as_str()]);
}
