//! Following changes finds what listing everything finds: random things happen to a Drive, and after each sync what is
//! known is what a person sees.

use std::collections::BTreeMap;

use ingest::loader::drive::{Drive, Node, Tree};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::fake::FakeDrive;
use crate::{drive, found, scope, settle};

/// Follows what changed since `token`; gives where to go on.
async fn follow(drive: &Drive, tree: &mut Tree, token: &str, shared_drive: Option<&str>) -> String {
    let mut token = token.to_owned();
    loop {
        let page = drive.list_changes(&token, shared_drive).await.expect("a page");
        page.changes.into_iter().for_each(|change| tree.apply(change));
        match (page.next, page.new_start) {
            (Some(next), _) => token = next,
            (None, new_start) => return new_start.expect("the last page says where to go on"),
        }
    }
}

#[tokio::test]
async fn following_changes_finds_what_a_person_finds_whatever_happened() {
    for seed in 0..24 {
        let mut random = StdRng::seed_from_u64(seed);
        let fake = FakeDrive::start().await;
        // Every third scope is in a shared drive, whose changes are a list of their own.
        let root = match seed % 3 {
            0 => fake.shared_drive("root"),
            _ => fake.folder("root", &[]),
        };
        let places = [
            root.clone(),
            fake.folder("outside", &[]),
            fake.shared_drive("other"),
        ];
        let drive = drive(&fake);
        let mut stored: BTreeMap<String, Node> = BTreeMap::new();
        let mut token: Option<String> = None;
        for step in 0..20 {
            for _ in 0..random.random_range(1..5) {
                fake.meddle(&mut random, &places, &root);
            }
            // As a service does that was started anew each time: from what is stored.
            let mut tree = Tree::new(scope(&root), stored.values().cloned());
            let shared_drive = (seed % 3 == 0).then_some(root.as_str());
            token = Some(match &token {
                Some(token) => {
                    let next = follow(&drive, &mut tree, token, shared_drive).await;
                    tree.doubt_roots();
                    tree.doubt_foreign(shared_drive);
                    next
                }
                None => {
                    let next = drive.start_page_token(shared_drive).await.expect("a token");
                    tree.doubt_everything();
                    next
                }
            });
            settle(&drive, &mut tree).await.expect("it ends");

            let view = fake.view(&[&root]);
            let readable: Vec<&str> = view.keys().map(String::as_str).collect();
            assert_eq!(found(&tree), readable, "seed {seed}, step {step}");
            let changes = tree.take_changes();
            for node in changes.put {
                let json = serde_json::to_string(&node).expect("JSON");
                stored.insert(node.id.clone(), serde_json::from_str(&json).expect("a node"));
            }
            for id in changes.removed {
                stored.remove(&id);
            }
            // Now and then the token is lost, and everything is listed.
            if random.random_bool(0.1) {
                token = None;
            }
        }
    }
}
