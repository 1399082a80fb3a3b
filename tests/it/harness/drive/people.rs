//! People who do things to their files without thinking of us.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::FakeDrive;

impl FakeDrive {
    /// Does one of the things that people do to their files. `places` are folders that stay, `root` among them.
    pub fn meddle(&self, random: &mut StdRng, places: &[String], root: &str) {
        let ids: Vec<String> = self
            .ids()
            .into_iter()
            .filter(|id| id != root && !places.contains(id))
            .collect();
        let pick = |random: &mut StdRng, from: &[String]| from[random.random_range(0..from.len())].clone();
        let folders: Vec<String> = ids
            .iter()
            .filter(|id| id.starts_with("dir"))
            .cloned()
            .chain(places.to_vec())
            .collect();
        let parent = pick(random, &folders);
        match random.random_range(0..12) {
            0 | 1 => drop(self.text("file", &[&parent], &random.random::<u32>().to_string())),
            2 => drop(self.folder("dir", &[&parent])),
            3 => drop(self.document("doc", &[&parent], "words")),
            4 => drop(self.shortcut(
                "link",
                &[&parent],
                &pick(random, &[ids, places.to_vec()].concat()),
            )),
            5 => {
                let second = pick(random, &folders);
                if self.drive_of(&second) == self.drive_of(&parent) && second != parent {
                    self.text("twice", &[&parent, &second], "in two folders");
                }
            }
            _ if ids.is_empty() => {}
            6 | 7 => self.move_to(&pick(random, &ids), &[&parent]),
            8 => self.trash(&pick(random, &ids)),
            9 => self.untrash(&pick(random, &ids)),
            10 => self.delete(&pick(random, &ids)),
            _ => self.share(&pick(random, &ids), random.random_bool(0.6)),
        }
    }
}
