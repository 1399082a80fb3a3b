//! The redo log of one shard: what was acknowledged and may not be in the shard's own files yet.
//!
//! The engine writes through memory maps and does not read its own log again after a crash, so the promise "acknowledged
//! is durable" is kept here: operations are appended and synced before they are applied; opening a shard applies what the
//! log holds once more; a checkpoint, after the engine has synced its files, empties it.
//!
//! A frame is the payload's length, its CRC-32 and the payload. Reading ends at the first frame that is not whole. Where
//! nothing follows, it is the one a crash interrupted, and nobody was told that it had been written. Whole frames behind it
//! say that the file was damaged: what they hold was acknowledged, and is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::operation::Operation;

const FRAME_HEAD_BYTES: usize = 8;

/// How far behind a frame that is not whole others are looked for, in bytes. A log is usually emptied at less.
const LOOKED_THROUGH: u64 = 32 << 20;

pub(super) struct RedoLog {
    file: File,
    /// Everything up to here is whole frames.
    len: u64,
}

impl RedoLog {
    /// Opens or creates the log, and cuts off what a crash left half-written. Where acknowledged operations go with it,
    /// `on_damage` is called before.
    pub(super) fn open(path: &Path, on_damage: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut log = Self { file, len: 0 };
        let whole_frames = log.read_frames(|_| Ok(()))?;
        let size_bytes = log.file.metadata()?.len() - whole_frames;
        if size_bytes > 0 {
            if log.has_frames_behind(whole_frames)? {
                tracing::error!(log = %path.display(), size_bytes, "the redo log of an index shard is damaged, and what was stored last is lost: all documents are put into the index again");
                on_damage()?;
            } else {
                tracing::warn!(log = %path.display(), size_bytes, "the redo log of an index shard ends in what a crash interrupted, which is cut off");
            }
        }
        log.cut(whole_frames)?;
        Ok(log)
    }

    /// Bytes of all frames.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Calls `apply` for each operation, oldest first.
    pub(super) fn replay(&mut self, mut apply: impl FnMut(Operation) -> io::Result<()>) -> io::Result<()> {
        self.read_frames(|payload| match Operation::decode(payload) {
            Some(operation) => apply(operation),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame of the redo log holds no operation",
            )),
        })?;
        Ok(())
    }

    /// Writes `payloads` in order and returns when they are on the disk; gives the log's length after each.
    ///
    /// After an error nothing of this call counts as written.
    pub(super) fn append(&mut self, payloads: &[Vec<u8>]) -> io::Result<Vec<u64>> {
        let mut frames = Vec::with_capacity(
            payloads
                .iter()
                .map(|payload| payload.len() + FRAME_HEAD_BYTES)
                .sum(),
        );
        let mut ends = Vec::with_capacity(payloads.len());
        for payload in payloads {
            let payload_len = u32::try_from(payload.len())
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "operation of 4 GiB or more"))?;
            frames.extend_from_slice(&payload_len.to_le_bytes());
            frames.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
            frames.extend_from_slice(payload);
            ends.push(self.len + frames.len() as u64);
        }
        let written = self.write_synced(&frames);
        if let Err(error) = written {
            // The bytes behind the end would otherwise come back to life at the next opening.
            self.cut(self.len)?;
            return Err(error);
        }
        self.len += frames.len() as u64;
        Ok(ends)
    }

    /// Forgets everything behind the first `len` bytes, which must be a length that `append` gave.
    pub(super) fn cut(&mut self, len: u64) -> io::Result<()> {
        if self.file.metadata()?.len() != len {
            self.file.set_len(len)?;
            self.file.sync_data()?;
        }
        self.len = len;
        Ok(())
    }

    fn write_synced(&mut self, frames: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.len))?;
        self.file.write_all(frames)?;
        self.file.sync_data()
    }

    /// Whether whole frames stand behind the one at `end`, which is not.
    fn has_frames_behind(&mut self, end: u64) -> io::Result<bool> {
        self.file.seek(SeekFrom::Start(end + 1))?;
        let mut rest = Vec::new();
        (&self.file).take(LOOKED_THROUGH).read_to_end(&mut rest)?;
        // Its length may be what is damaged, so that they may begin anywhere.
        Ok((0..rest.len()).any(|start| begins_with_frame(&rest[start..])))
    }

    /// Calls `visit` with each whole frame's payload and returns the length of all of them.
    fn read_frames(&mut self, mut visit: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
        let file_len = self.file.metadata()?.len();
        self.file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::new(&self.file);
        let mut end = 0_u64;
        let mut payload = Vec::new();
        loop {
            let head_end = end + FRAME_HEAD_BYTES as u64;
            if head_end > file_len {
                return Ok(end);
            }
            let mut head = [0_u8; FRAME_HEAD_BYTES];
            reader.read_exact(&mut head)?;
            let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
            let payload_len = u32::from_le_bytes([l0, l1, l2, l3]);
            let checksum = u32::from_le_bytes([c0, c1, c2, c3]);
            // A length of zero is what the file system leaves where a write never arrived.
            if payload_len == 0 || head_end + u64::from(payload_len) > file_len {
                return Ok(end);
            }
            payload.resize(payload_len as usize, 0);
            reader.read_exact(&mut payload)?;
            if crc32fast::hash(&payload) != checksum {
                return Ok(end);
            }
            visit(&payload)?;
            end = head_end + u64::from(payload_len);
        }
    }
}

fn begins_with_frame(bytes: &[u8]) -> bool {
    let Some((&[l0, l1, l2, l3, c0, c1, c2, c3], rest)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>()
    else {
        return false;
    };
    let payload = rest.get(..u32::from_le_bytes([l0, l1, l2, l3]) as usize);
    // An operation is soon seen not to be one; a checksum takes all of it.
    payload.is_some_and(|payload| {
        Operation::decode(payload).is_some()
            && crc32fast::hash(payload) == u32::from_le_bytes([c0, c1, c2, c3])
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use uuid::Uuid;

    use super::super::operation::Change;
    use super::*;
    use crate::TenantId;

    fn operation(n: u128) -> Operation {
        Operation {
            tenant_id: TenantId(Uuid::from_u128(n)),
            change: Change::DeleteTenant,
        }
    }

    /// Opens a log that is not damaged.
    fn open(path: &Path) -> io::Result<RedoLog> {
        RedoLog::open(path, || panic!("taken for damaged"))
    }

    fn tenants_in(log: &mut RedoLog) -> Vec<u128> {
        let mut tenants = Vec::new();
        log.replay(|operation| {
            tenants.push(operation.tenant_id.0.as_u128());
            Ok(())
        })
        .expect("the log can be read");
        tenants
    }

    #[test]
    fn what_was_appended_is_replayed_in_order_after_reopening() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("redo");
        let mut log = open(&path).expect("a new log");
        log.append(&[operation(1).encode(), operation(2).encode()])
            .expect("written");
        log.append(&[operation(3).encode()]).expect("written");
        drop(log);

        let mut log = open(&path).expect("the same log");

        assert_eq!(tenants_in(&mut log), [1, 2, 3]);
    }

    #[test]
    fn a_torn_or_damaged_tail_is_cut_off_and_written_over() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("redo");
        let mut log = open(&path).expect("a new log");
        let ends = log
            .append(&[operation(1).encode(), operation(2).encode()])
            .expect("written");
        drop(log);
        let whole = fs::read(&path).expect("the file");
        let first_end = ends[0] as usize;

        for torn_len in first_end..whole.len() {
            let mut torn = whole[..torn_len].to_vec();
            torn.resize(whole.len() + 20, 0);
            fs::write(&path, &torn).expect("written");

            let mut log = open(&path).expect("the torn log");
            log.append(&[operation(9).encode()]).expect("written");

            assert_eq!(tenants_in(&mut log), [1, 9], "torn after {torn_len} bytes");
        }
    }

    #[test]
    fn whole_operations_behind_one_that_cannot_be_read_are_told_before_they_are_cut_off() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("redo");
        let mut log = open(&path).expect("a new log");
        let ends = log
            .append(&[1, 2, 3].map(|n| operation(n).encode()))
            .expect("written");
        drop(log);
        let whole = fs::read(&path).expect("the file");

        for bit in (ends[0] * 8)..(ends[1] * 8) {
            let mut damaged = whole.clone();
            damaged[bit as usize / 8] ^= 1 << (bit % 8);
            fs::write(&path, &damaged).expect("written");
            let mut len_when_told = None;

            let mut log = RedoLog::open(&path, || {
                len_when_told = Some(fs::metadata(&path)?.len());
                Ok(())
            })
            .expect("the log");

            assert_eq!(len_when_told, Some(whole.len() as u64), "bit {bit}");
            assert_eq!(tenants_in(&mut log), [1]);
        }
        fs::write(&path, &whole[..whole.len() - 1]).expect("written");
        assert!(open(&path).is_ok(), "torn, not damaged");
        let mut damaged = whole.clone();
        damaged[ends[0] as usize + 9] ^= 1;
        fs::write(&path, &damaged).expect("written");
        let told = RedoLog::open(&path, || Err(io::Error::other("cannot be noted")));
        assert!(told.is_err());
        assert_eq!(fs::read(&path).expect("the file"), damaged, "nothing was cut off");
    }

    #[test]
    fn cutting_forgets_the_rest() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut log = open(&dir.path().join("redo")).expect("a new log");
        let ends = log
            .append(&[operation(1).encode(), operation(2).encode()])
            .expect("written");

        log.cut(ends[0]).expect("cut");
        assert_eq!(tenants_in(&mut log), [1]);

        log.cut(0).expect("cut");
        assert!(log.is_empty());
        assert_eq!(tenants_in(&mut log), Vec::<u128>::new());
    }
}
