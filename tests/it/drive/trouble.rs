//! Rate limits, expired tokens, withdrawn access, lost folders, broken transfers: each has an answer, and none of them
//! empties the knowledge.

use serde_json::json;

use super::desk::{Desk, options_for};
use crate::harness::app::Tenant;
use crate::harness::drive::{FakeDrive, Fault};

const LIMITED: Fault = Fault::Forbidden {
    reason: "userRateLimitExceeded",
    retry_after: Some(0),
};

#[tokio::test]
async fn rate_limits_outages_and_broken_transfers_are_waited_out() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    let long = "Long words. ".repeat(20_000);
    fake.text("long.txt", &[&root], long.trim());
    fake.text("short.txt", &[&root], "Short words.");
    for kind in ["get", "list", "start_token", "media", "token"] {
        fake.fail(
            kind,
            1,
            if kind == "token" {
                Fault::Status(503)
            } else {
                LIMITED
            },
        );
    }
    fake.fail("media", 1, Fault::CutAfter(100_000));

    let (desk, run) = Desk::of_folder(&service, &fake, &root).await;

    run.ended("done", [2, 0, 0, 0, 0]);
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));
}

#[tokio::test]
async fn a_limit_that_asks_for_a_long_rest_gives_the_run_to_a_later_time() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    for n in 0..6 {
        fake.text(&format!("{n}.txt"), &[&root], "Words.");
    }
    let rest = Fault::Forbidden {
        reason: "rateLimitExceeded",
        retry_after: Some(600),
    };
    fake.fail("media", 1, rest.clone());
    fake.fail("list", 1, rest);

    let (desk, run) = Desk::of_folder(&service, &fake, &root).await;

    run.ended("done", [6, 0, 0, 0, 0]);
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));
}

#[tokio::test]
async fn an_expired_page_token_means_listing_everything_and_reading_nothing_twice() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    fake.text("kept.txt", &[&root], "Kept words.");
    let gone = fake.text("gone.txt", &[&root], "Gone words.");
    let (desk, _) = Desk::of_folder(&service, &fake, &root).await;
    for fault in [None, Some(Fault::Gone), Some(Fault::BadPageToken)] {
        fake.forget_requests();
        match fault {
            Some(fault) => fake.fail("changes", 1, fault),
            None => {
                fake.delete(&gone);
                fake.expire_change_tokens();
            }
        }

        let run = desk.sync().await;

        run.is_done();
        assert_eq!(desk.knowledge().await, fake.view(&[&root]));
        assert_eq!(fake.transfers(), 0);
        assert!(fake.requests("list") > 0);
    }
}

#[tokio::test]
async fn withdrawn_access_fails_the_run_and_removes_nothing() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    fake.text("a.txt", &[&root], "Words.");
    let (desk, _) = Desk::of_folder(&service, &fake, &root).await;
    let known = desk.knowledge().await;

    fake.withdraw_access(true);
    let run = desk.sync().await;
    run.failed_for("access_withdrawn");
    assert_eq!(desk.source().await["state"], "failed");
    assert_eq!(desk.knowledge().await, known);

    fake.withdraw_access(false);
    fake.text("b.txt", &[&root], "More words.");
    let run = desk.sync().await;
    run.ended("done", [1, 0, 1, 0, 0]);
}

#[tokio::test]
async fn access_that_ends_while_files_are_read_fails_the_run_and_keeps_what_was_read() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    let files: Vec<String> = (0..12)
        .map(|n| fake.text(&format!("{n}.txt"), &[&root], "Words."))
        .collect();
    let (desk, _) = Desk::of_folder(&service, &fake, &root).await;
    files.iter().for_each(|id| fake.write(id, "Other words."));

    fake.fail("media", 100, Fault::Status(401));
    let run = desk.sync().await;
    run.failed_for("access_withdrawn");
    assert_eq!(desk.knowledge().await.len(), 12);
    assert!(fake.requests("token") <= 6, "no storm of token requests");
}

#[tokio::test]
async fn a_folder_that_is_lost_fails_the_run_and_removes_nothing() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    fake.text("a.txt", &[&root], "Words.");
    let (desk, _) = Desk::of_folder(&service, &fake, &root).await;
    let known = desk.knowledge().await;

    for lose in [true, false] {
        if lose {
            fake.share(&root, false);
        } else {
            fake.share(&root, true);
            fake.trash(&root);
        }
        let run = desk.sync().await;
        run.failed_for("root_missing");
        assert_eq!(desk.knowledge().await, known);
    }

    fake.untrash(&root);
    let run = desk.sync().await;
    run.is_done();
    assert_eq!(desk.knowledge().await, known);
}

#[tokio::test]
async fn a_mass_disappearance_is_held_back_until_the_owner_agrees() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    let inner = fake.folder("Inner", &[&root]);
    for n in 0..8 {
        fake.text(&format!("{n}.txt"), &[&inner], "Words.");
    }
    fake.text("kept.txt", &[&root], "Kept words.");
    let drive = json!({ "folder_id": root, "credentials": fake.service_account() });
    let (desk, _) = Desk::with(&service, drive).await;

    fake.trash(&inner);
    let held = desk.sync().await;
    assert_eq!((held.state(), held.counts()[3]), ("partial", 0), "{}", held.0);
    assert_eq!(desk.knowledge().await.len(), 9);
    let again = desk.sync().await;
    assert_eq!(
        (again.state(), desk.knowledge().await.len()),
        ("partial", 9),
        "{}",
        again.0
    );

    let agreed = desk.sync_as(json!({ "accept_removals": true })).await;
    assert_eq!((agreed.state(), agreed.counts()[3]), ("done", 8), "{}", agreed.0);
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));
}

#[tokio::test]
async fn a_file_that_vanishes_between_list_and_download_is_gone_and_no_failure() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    let file = fake.text("a.txt", &[&root], "Words.");
    fake.text("b.txt", &[&root], "Other words.");
    let (desk, _) = Desk::of_folder(&service, &fake, &root).await;

    fake.write(&file, "Changed words.");
    fake.fail("media", 1, Fault::Status(404));
    let run = desk.sync().await;

    run.ended("done", [0, 0, 1, 1, 0]);
    fake.write(&file, "Changed again.");
    assert_eq!(desk.sync().await.counts(), [1, 0, 1, 0, 0]);
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));
}

#[tokio::test]
async fn without_anything_that_opens_a_drive_a_source_says_so() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);

    let (desk, run) = Desk::with(&service, json!({ "folder_id": root })).await;
    run.failed_for("not_connected");

    let mut stranger = fake.service_account();
    stranger["client_email"] = json!("somebody@else.example");
    let path = format!("/api/chatbots/{}/sources", desk.chatbot_id);
    let drive = json!({ "folder_id": root, "credentials": stranger });
    desk.tenant
        .post(&path, json!({ "kind": "drive", "drive": drive }))
        .await
        .expect(202);
    let drive = json!({ "folder_id": root, "credentials": { "type": "service_account", "client_email": "a@b", "private_key": "no key" } });
    let reply = desk
        .tenant
        .post(&path, json!({ "kind": "drive", "drive": drive }))
        .await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (422, "invalid_credentials")
    );
    service.drain_jobs().await;
}

#[tokio::test]
async fn a_run_that_was_interrupted_goes_on_where_it_stood() {
    let fake = FakeDrive::start().await;
    let service = options_for(&fake).start().await;
    let root = fake.folder("Root", &[]);
    for n in 0..10 {
        let folder = fake.folder(&format!("Folder {n}"), &[&root]);
        fake.text(&format!("{n}.txt"), &[&folder], &format!("Words {n}."));
    }
    let tenant = service.tenant("acme").await;
    let (id, key) = (tenant.id, tenant.key.clone());
    let chatbot_id = tenant.chatbot("Desk").await.id;
    let drive = json!({ "folder_id": root, "credentials": fake.service_account() });
    let path = format!("/api/chatbots/{chatbot_id}/sources");
    let source_id = tenant
        .post(&path, json!({ "kind": "drive", "drive": drive }))
        .await
        .expect(202)
        .id();
    let rest = Fault::Forbidden {
        reason: "userRateLimitExceeded",
        retry_after: Some(600),
    };
    fake.fail("media", 1, rest);
    service.drain_jobs().await;
    let (lists, downloads) = (fake.requests("list"), fake.requests("media"));
    assert!(downloads < 10, "the run was interrupted");

    let service = service.restart(&[]).await;
    let tenant = Tenant {
        service: &service,
        id,
        key,
    };
    let desk = Desk {
        tenant,
        chatbot_id,
        source_id,
    };
    // Google's clock goes on as ours does; a new process signs anew.
    fake.advance(600);
    let run = desk.finish().await;

    run.ended("done", [10, 0, 0, 0, 0]);
    assert_eq!(desk.knowledge().await, fake.view(&[&root]));
    assert_eq!(fake.requests("list"), lists, "nothing was listed twice");
    // One that was refused, and at most those that were under way beside it.
    assert!(fake.requests("media") <= 10 + 4, "{}", fake.requests("media"));
}
