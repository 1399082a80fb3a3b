//! Files of the embedded index that are not what was written: the part is put aside, and whoever was in it is told apart from
//! those who were not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use retrieval::index::{EmbeddedIndex, EmbeddedOptions, Facets, Index, IndexError, Point};

use crate::embedded_index::{open, options};
use crate::samples::{DIMENSION, by_vector, by_words, chunk, found, point, tenant, vector};

/// Of two shards, odd ones are in the second.
const TENANTS: [u128; 4] = [2, 3, 4, 5];

/// A way to damage a shard, and what of it still answers.
struct Fault {
    name: &'static str,
    damage: fn(&Path),
    leaves_words: bool,
    leaves_meaning: bool,
}

const FAULTS: [Fault; 7] = [
    Fault {
        name: "a torn segment",
        damage: |shard| tear(&file_in(&shard.join("keywords"), "segment")),
        leaves_words: false,
        leaves_meaning: false,
    },
    Fault {
        name: "a segment that is gone",
        damage: |shard| fs::remove_file(file_in(&shard.join("keywords"), "segment")).expect("removed"),
        leaves_words: false,
        leaves_meaning: false,
    },
    Fault {
        name: "a torn list of deleted chunks",
        damage: |shard| tear(&file_in(&shard.join("keywords"), "deleted")),
        leaves_words: false,
        leaves_meaning: false,
    },
    Fault {
        name: "a torn list of facets",
        damage: |shard| tear(&file_in(&shard.join("keywords"), "facets")),
        leaves_words: false,
        leaves_meaning: false,
    },
    Fault {
        name: "an emptied list of segments",
        damage: |shard| fs::write(shard.join("keywords/manifest.json"), "").expect("written"),
        leaves_words: false,
        leaves_meaning: false,
    },
    Fault {
        name: "broken vectors",
        damage: |shard| {
            for segment in fs::read_dir(shard.join("vectors/segments"))
                .expect("segments")
                .flatten()
            {
                fs::write(segment.path().join("version.info"), "").expect("written");
            }
        },
        leaves_words: true,
        leaves_meaning: false,
    },
    Fault {
        name: "a folder in place of the redo log",
        damage: |shard| {
            fs::remove_file(shard.join("redo.log")).expect("removed");
            fs::create_dir(shard.join("redo.log")).expect("made");
        },
        leaves_words: true,
        leaves_meaning: true,
    },
];

fn collection(dir: &Path) -> PathBuf {
    dir.join(format!("test-model-{DIMENSION}"))
}

fn file_in(dir: &Path, extension: &str) -> PathBuf {
    let entries = fs::read_dir(dir)
        .expect("a folder")
        .flatten()
        .map(|entry| entry.path());
    let mut files = entries.filter(|path| path.extension().is_some_and(|found| found == extension));
    files.next().expect("a file of this kind")
}

fn tear(path: &Path) {
    let bytes = fs::read(path).expect("a file");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
}

fn kept(n: u64) -> Point {
    Point {
        facets: Facets {
            tags: vec!["kept".to_owned()],
            ..Facets::default()
        },
        ..point(n, "kept in two shards")
    }
}

async fn fill(index: &EmbeddedIndex) {
    for n in TENANTS {
        index
            .upsert(tenant(n), (1..=6).map(kept).collect())
            .await
            .expect("stored");
    }
}

/// An index with every kind of file that there is.
async fn filled(dir: &Path) -> String {
    let index = open(dir);
    fill(&index).await;
    index.close().await.expect("closed");
    let index = open(dir);
    for n in TENANTS {
        index
            .delete_chunks(tenant(n), vec![chunk(2)])
            .await
            .expect("deleted");
    }
    let name = index.generation().expect("a name");
    index.close().await.expect("closed");
    name
}

fn look(dir: &Path) -> Result<EmbeddedIndex, IndexError> {
    EmbeddedIndex::open(EmbeddedOptions {
        mends: false,
        ..options(dir)
    })
}

/// What lies in the folder itself, with the contents of files.
fn lying_in(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("a folder").flatten();
    let entries = entries.map(|entry| (entry.path(), fs::read(entry.path()).unwrap_or_default()));
    entries.collect()
}

/// Whether the tenant's chunk is found by words, and by meaning.
async fn answering(index: &EmbeddedIndex, n: u128) -> [bool; 2] {
    let by_words = found(index, tenant(n), by_words("kept")).await;
    let by_meaning = found(index, tenant(n), by_vector(vector(1))).await;
    [by_words, by_meaning].map(|found| found.contains(&chunk(1)))
}

async fn is_whole(index: &EmbeddedIndex, n: u128) -> bool {
    answering(index, n).await == [true, true]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_part_is_put_aside_and_concerns_only_who_was_in_it() {
    for Fault {
        name,
        damage,
        leaves_words,
        leaves_meaning,
    } in FAULTS
    {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let before = filled(dir.path()).await;
        let shard = collection(dir.path()).join("shard-0");
        let aside = collection(dir.path()).join("shard-0.damaged");
        for round in 0..2 {
            damage(&shard);

            let index = open(dir.path());

            let since = index.generation().expect("a name");
            for n in TENANTS {
                let was_in_it = n % 2 == 0;
                assert_eq!(
                    index.has_lost(tenant(n), &before),
                    was_in_it,
                    "{name}, tenant {n}"
                );
                let left = [leaves_words, leaves_meaning].map(|leaves| !was_in_it || leaves);
                assert_eq!(answering(&index, n).await, left, "{name}, tenant {n}");
            }
            assert_ne!(
                lying_in(&aside),
                BTreeMap::new(),
                "{name}: what it was is there to be seen"
            );
            fill(&index).await;
            index.close().await.expect("closed");
            let index = open(dir.path());
            assert_eq!(index.generation().as_ref(), Some(&since), "{name}, round {round}");
            for n in TENANTS {
                assert!(is_whole(&index, n).await, "{name}, tenant {n}: whole again");
                assert!(!index.has_lost(tenant(n), &since), "{name}, tenant {n}");
                index
                    .delete_chunks(tenant(n), vec![chunk(2)])
                    .await
                    .expect("deleted");
            }
            index.close().await.expect("closed");
        }
        let all = lying_in(&collection(dir.path()));
        let put_aside = all
            .keys()
            .filter(|path| path.extension().is_some_and(|end| end == "damaged"));
        assert_eq!(put_aside.count(), 1, "{name}: the latest is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_is_told_the_folder_of_all_that_is_damaged_and_leaves_it_as_it_is() {
    for Fault { name, damage, .. } in FAULTS {
        let dir = tempfile::tempdir().expect("a temporary directory");
        filled(dir.path()).await;
        let collection = collection(dir.path());
        for shard in ["shard-0", "shard-1"] {
            damage(&collection.join(shard));
        }
        let places = [
            collection.clone(),
            collection.join("shard-0"),
            collection.join("shard-0/keywords"),
            collection.join("shard-0/vectors"),
        ];
        let before = places.each_ref().map(|place| lying_in(place));

        let error = look(dir.path()).err().expect("it is damaged");

        assert!(matches!(error, IndexError::PartDamaged { .. }), "{name}: {error}");
        let told = error.to_string();
        assert!(
            told.contains("shard-0: ") && told.contains("shard-1: "),
            "{name}: {told}"
        );
        assert_eq!(places.each_ref().map(|place| lying_in(place)), before, "{name}");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    filled(dir.path()).await;
    let whole = look(dir.path()).expect("whole");
    assert!(is_whole(&whole, 2).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_away_while_somebody_looks_is_named_and_whole_when_it_is_back() {
    for part in [
        "shard-0",
        "shard-0/keywords",
        "shard-0/vectors",
        "shard-0/redo.log",
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let name = filled(dir.path()).await;
        let place = collection(dir.path()).join(part);
        let elsewhere = dir.path().join("away");
        fs::rename(&place, &elsewhere).expect("moved");

        let error = look(dir.path()).err().expect("it is away");

        assert!(
            matches!(&error, IndexError::PartDamaged { reason } if reason.contains("shard-0: ")),
            "{part}: {error}"
        );
        fs::rename(&elsewhere, &place).expect("moved back");
        let index = open(dir.path());
        assert_eq!(index.generation(), Some(name), "{part}");
        assert!(is_whole(&index, 2).await, "{part}");
        index.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_are_nobodys_are_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = filled(dir.path()).await;
    let strange = ["", "shard-0", "shard-0/keywords"].map(|place| {
        let folder = collection(dir.path()).join(place).join("lost+found");
        fs::create_dir(&folder).expect("made");
        folder
    });

    let index = open(dir.path());

    assert_eq!(index.generation(), Some(name));
    assert!(is_whole(&index, 2).await);
    fill(&index).await;
    index.close().await.expect("closed");
    assert!(strange.iter().all(|folder| folder.is_dir()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_does_not_say_how_it_is_laid_out_is_made_anew() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = filled(dir.path()).await;
    let manifest = collection(dir.path()).join("manifest.json");
    fs::write(&manifest, "").expect("written");
    let error = look(dir.path()).err().expect("it is damaged");
    assert!(error.to_string().contains("manifest.json"), "{error}");
    assert_eq!(fs::read(&manifest).expect("left as it was"), b"");

    let index = open(dir.path());

    assert!(TENANTS.iter().all(|n| index.has_lost(tenant(*n), &before)));
    fill(&index).await;
    assert!(is_whole(&index, 2).await && is_whole(&index, 3).await);
    index.close().await.expect("closed");
    let aside = dir
        .path()
        .join(format!("test-model-{DIMENSION}.damaged/shard-0/keywords"));
    assert!(aside.is_dir(), "what it was is there to be seen");
    open(dir.path()).close().await.expect("closed");
    assert!(aside.is_dir(), "and stays");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_machine_does_not_let_us_read_are_not_taken_for_damaged_ones() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    filled(dir.path()).await;
    let segment = file_in(&collection(dir.path()).join("shard-0/keywords"), "segment");
    fs::remove_file(&segment).expect("removed");
    // Nobody, root included, may read through a link that leads to itself.
    std::os::unix::fs::symlink(&segment, &segment).expect("linked");

    let error = crate::embedded_index::try_open(dir.path())
        .err()
        .expect("it cannot be read");

    let told = error.to_string();
    assert!(matches!(error, IndexError::Unavailable { .. }), "{told}");
    assert!(
        told.contains("shard-0: ") && told.contains("remove the folder"),
        "{told}"
    );
    assert!(!collection(dir.path()).join("shard-0.damaged").exists());
}

/// Overwrites a byte of the first term's postings, which nobody reads before it is asked for.
fn flip(shard: &Path) -> PathBuf {
    let segment = file_in(&shard.join("keywords"), "segment");
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes[1] ^= 0x40;
    fs::write(&segment, bytes).expect("written");
    segment
}

#[tokio::test(flavor = "multi_thread")]
async fn words_that_are_not_what_was_written_are_found_by_reading_them_and_put_aside_by_who_mends() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = filled(dir.path()).await;
    let shard = collection(dir.path()).join("shard-0");
    flip(&shard);

    for _ in 0..2 {
        let index = look(dir.path()).expect("it opens");
        let damage = index.find_damage().await.expect("read");
        assert!(
            matches!(&damage[..], [one] if one.contains("shard-0: ")),
            "{damage:?}"
        );
        index.close().await.expect("closed");
    }
    let index = open(dir.path());
    assert_eq!(index.generation().as_ref(), Some(&before), "nothing was noted");
    assert_eq!(index.find_damage().await.expect("read").len(), 1);
    index.close().await.expect("closed");
    let index = open(dir.path());

    for n in TENANTS {
        assert_eq!(index.has_lost(tenant(n), &before), n % 2 == 0);
    }
    fill(&index).await;
    assert_eq!(index.find_damage().await.expect("read"), Vec::<String>::new());
    assert!(is_whole(&index, 2).await);
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_words_are_not_carried_on_and_the_next_start_puts_them_aside() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = filled(dir.path()).await;
    let segment = flip(&collection(dir.path()).join("shard-0"));
    let index = open(dir.path());
    // So much of the segment is deleted that it is due to be written anew.
    for n in [2, 4] {
        let gone = (3..=6).map(chunk).collect();
        index.delete_chunks(tenant(n), gone).await.expect("deleted");
        index.upsert(tenant(n), vec![kept(7)]).await.expect("stored");
    }
    index.close().await.expect("closed");
    assert!(segment.exists(), "it stays as it is");

    let error = look(dir.path()).err().expect("it is known");
    assert!(error.to_string().contains("shard-0: "), "{error}");
    let index = open(dir.path());

    for n in TENANTS {
        assert_eq!(index.has_lost(tenant(n), &before), n % 2 == 0);
    }
    index.close().await.expect("closed");
}
