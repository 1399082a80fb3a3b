//! Which making of a collection this is, so that one that was lost and made anew is told from the one that was filled; and what
//! was lost with each new name, so that whoever was in none of it is left alone.
//!
//! The file has a line for each name that can still be told from the others, the present one last: the name, and what was lost
//! when it was given. Without that, as in files of earlier versions, it was everything.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keywords::write_whole;
use crate::TenantId;

const FILE: &str = "generation";

/// The name of collections that were made before they had names.
const UNNAMED: &str = "0";

/// Names that are kept. Of what was filled before the first of them, everything counts as lost.
const KEPT: usize = 100;

/// What is put into a collection again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Lost {
    Everything,
    /// What a shared shard held of all tenants that it is for, but those who had one of their own then.
    Shared {
        shard: usize,
        but: BTreeSet<TenantId>,
    },
    /// What a tenant had in its own shard.
    Own(TenantId),
}

impl Lost {
    fn concerns(&self, tenant_id: TenantId, its_shard: usize) -> bool {
        match self {
            Self::Everything => true,
            Self::Shared { shard, but } => *shard == its_shard && !but.contains(&tenant_id),
            Self::Own(owner) => *owner == tenant_id,
        }
    }
}

/// The names of a collection, as the disk has them.
#[derive(Debug)]
pub(super) struct Makings {
    path: PathBuf,
    /// Oldest first.
    known: Vec<Making>,
}

#[derive(Debug, Clone, PartialEq)]
struct Making {
    name: String,
    lost: Lost,
}

impl Makings {
    pub(super) fn read(dir: &Path) -> Self {
        let path = dir.join(FILE);
        // What cannot be read names nothing that was filled: then everything is put in again.
        let text = fs::read_to_string(&path).unwrap_or_default();
        let known = text.lines().filter_map(Making::parse).collect();
        Self { path, known }
    }

    /// The collection's name.
    pub(super) fn name(&self) -> &str {
        self.known.last().map_or(UNNAMED, |making| making.name.as_str())
    }

    /// Names a collection that is being made, or of which something is lost.
    pub(super) fn make(&mut self, lost: Lost) -> io::Result<()> {
        let mut known = match lost {
            Lost::Everything => Vec::new(),
            Lost::Shared { .. } | Lost::Own(_) => self.known.clone(),
        };
        known.push(Making {
            name: Uuid::now_v7().to_string(),
            lost,
        });
        known.drain(..known.len().saturating_sub(KEPT));
        let lines = known
            .iter()
            .map(Making::as_line)
            .collect::<io::Result<Vec<_>>>()?;
        write_whole(&self.path, lines.concat().as_bytes())?;
        self.known = known;
        Ok(())
    }

    /// Whether the tenant may have lost something since the collection was called `since`.
    pub(super) fn has_lost(&self, since: &str, (tenant_id, its_shard): (TenantId, usize)) -> bool {
        if self.name() == since {
            return false;
        }
        match self.known.iter().position(|making| making.name == since) {
            Some(filled) => {
                let later = &self.known[filled + 1..];
                later
                    .iter()
                    .any(|making| making.lost.concerns(tenant_id, its_shard))
            }
            None => true,
        }
    }
}

impl Making {
    fn parse(line: &str) -> Option<Self> {
        let (name, lost) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let lost = serde_json::from_str(lost).unwrap_or(Lost::Everything);
        let name = name.to_owned();
        (!name.is_empty()).then_some(Self { name, lost })
    }

    fn as_line(&self) -> io::Result<String> {
        let Self { name, lost } = self;
        Ok(match lost {
            Lost::Everything => format!("{name}\n"),
            Lost::Shared { .. } | Lost::Own(_) => format!("{name} {}\n", serde_json::to_string(lost)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: TenantId = TenantId(Uuid::from_u128(1));
    const GLOBEX: TenantId = TenantId(Uuid::from_u128(2));

    fn shard(shard: usize, but: &[TenantId]) -> Lost {
        let but = but.iter().copied().collect();
        Lost::Shared { shard, but }
    }

    #[test]
    fn a_new_name_concerns_those_who_were_in_what_was_lost() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut makings = Makings::read(dir.path());
        assert_eq!(makings.name(), UNNAMED);
        makings.make(Lost::Everything).expect("written");
        let first = makings.name().to_owned();
        makings.make(shard(0, &[GLOBEX])).expect("written");
        let second = makings.name().to_owned();
        makings.make(Lost::Own(GLOBEX)).expect("written");

        let makings = Makings::read(dir.path());

        let lost = |since: &str| [(ACME, 0), (ACME, 1), (GLOBEX, 0)].map(|who| makings.has_lost(since, who));
        assert_eq!(lost(&first), [true, false, true]);
        assert_eq!(lost(&second), [false, false, true]);
        assert_eq!(lost(makings.name()), [false; 3]);
        assert_eq!(lost("a name that nobody gave"), [true; 3]);
    }

    #[test]
    fn when_everything_is_lost_no_earlier_name_counts() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut makings = Makings::read(dir.path());
        makings.make(Lost::Everything).expect("written");
        let first = makings.name().to_owned();
        makings.make(shard(0, &[])).expect("written");
        makings.make(Lost::Everything).expect("written");

        assert!(makings.has_lost(&first, (ACME, 1)));
        assert_eq!(makings.known.len(), 1);
    }

    #[test]
    fn a_name_of_an_earlier_version_goes_on_and_the_oldest_are_forgotten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join(FILE), " 0192-earlier \n").expect("written");
        let mut makings = Makings::read(dir.path());
        assert_eq!(makings.name(), "0192-earlier");

        makings.make(shard(3, &[])).expect("written");
        assert!(!makings.has_lost("0192-earlier", (ACME, 0)));
        for _ in 0..KEPT {
            makings.make(shard(3, &[])).expect("written");
        }

        assert!(makings.has_lost("0192-earlier", (ACME, 0)));
        assert_eq!(makings.known.len(), KEPT);
    }
}
