//! Random things happen to a Drive; after each sync the knowledge is what a person sees there.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::desk::{Desk, options_for};
use crate::harness::drive::FakeDrive;

#[tokio::test]
async fn after_each_sync_the_knowledge_is_what_the_drive_shows() {
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let fake = FakeDrive::start().await;
        let service = options_for(&fake).start().await;
        let root = match seed {
            0 => fake.shared_drive("root"),
            _ => fake.folder("root", &[]),
        };
        let places = [
            root.clone(),
            fake.folder("outside", &[]),
            fake.shared_drive("other"),
        ];
        let (desk, _) = Desk::of_folder(&service, &fake, &root).await;
        for step in 0..8 {
            for _ in 0..random.random_range(1..5) {
                fake.meddle(&mut random, &places, &root);
            }
            if random.random_bool(0.2) {
                fake.expire_change_tokens();
            }
            let full = random.random_bool(0.1);

            let run = desk.sync_as(json!({ "full": full })).await;

            assert_eq!(run.state(), "done", "seed {seed}, step {step}: {}", run.0);
            assert_eq!(
                desk.knowledge().await,
                fake.view(&[&root]),
                "seed {seed}, step {step}"
            );
        }
        desk.tenant.check_stores_agree().await;
    }
}
