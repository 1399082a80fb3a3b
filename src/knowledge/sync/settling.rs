//! What becomes of each item of a batch: its document, its state, and what is known of it from now on.

use chrono::{DateTime, TimeDelta, Utc};

use super::ahead::Ahead;
use super::batch::{ReadItem, will_retry};
use super::driver::{Content, File, Outcome, Retry};
use super::items::{self, Change, Item, ItemState, KnownAs, Owner, Place, Read, Validators};
use super::slice::{Hold, Progress};
use super::{documents, text};
use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::id::DocumentId;
use crate::jobs::Priority;
use crate::knowledge::facts::{self, Facts};
use crate::knowledge::{index_changes, indexing, labels, store as knowledge_store};

/// The pause after an item's first failed attempt; four times as long after each further one.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(5);

/// The longest pause that a site may ask for.
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(1);

/// What a transaction over a batch needs and gathers.
pub(super) struct Commit<'a> {
    app: &'a App,
    hold: &'a Hold,
    now: DateTime<Utc>,
    write: Write,
    ahead: Ahead,
    progress: Progress,
    /// Documents to index, with their files.
    to_index: Vec<(DocumentId, String)>,
    /// Files that nothing names once the transaction is through.
    superfluous: Vec<String>,
    /// Documents that gave way to others of the same text.
    removed: Vec<DocumentId>,
    /// Documents that the chatbot may still get; counted when the first new one comes.
    room: Option<i64>,
}

impl<'a> Commit<'a> {
    pub(super) fn new(app: &'a App, hold: &'a Hold, write: Write, ahead: Ahead, now: DateTime<Utc>) -> Self {
        Self {
            app,
            hold,
            now,
            write,
            ahead,
            progress: Progress::default(),
            to_index: Vec::new(),
            superfluous: Vec::new(),
            removed: Vec::new(),
            room: None,
        }
    }

    fn place(&self) -> Place {
        self.hold.place
    }

    /// Makes it durable; returns the files that nothing names any more.
    pub(super) async fn finish(mut self) -> Result<Vec<String>> {
        self.hold
            .advance(&mut self.write, &self.progress, self.now)
            .await?;
        indexing::enqueue(
            self.app,
            &mut self.write,
            self.hold.place.tenant_id,
            &self.to_index,
            Priority::Bulk,
        )
        .await?;
        let tenant_id = self.hold.place.tenant_id;
        index_changes::remove_documents(self.app, &mut self.write, tenant_id, &self.removed, Vec::new())
            .await?;
        self.write.commit().await?;
        Ok(self.superfluous)
    }

    pub(super) async fn settle(&mut self, read: &mut ReadItem) -> Result<()> {
        // Another item may have taken over its document since it was looked up.
        (read.item.document_id, read.item.text_hash) = self
            .ahead
            .known_of(&mut self.write, self.hold.place, &read.item.key)
            .await?;
        let (read, item) = (&*read, &read.item);
        if let Some(complaint) = &read.reading.complaint {
            self.complain(&item.url, complaint.code, complaint.message)
                .await?;
        }
        match &read.reading.outcome {
            Outcome::NotBegun | Outcome::Busy { .. } => Ok(()),
            Outcome::Same { validators } => self.settle_same(item, validators.as_ref()).await,
            Outcome::Content(content) if self.ahead.is_excluded(&content.text_hash) => {
                self.superfluous.extend(read.file_key.clone());
                self.settle_not_kept(read, &content.validators).await
            }
            Outcome::Content(content) => self.settle_content(read, content).await,
            Outcome::Moved { to, validators } => self.settle_moved(read, to, validators).await,
            Outcome::Gone => self.settle_as(item, ItemState::Gone).await,
            Outcome::Skipped => self.settle_as(item, ItemState::Skipped).await,
            Outcome::NotKept { validators } => self.settle_not_kept(read, validators).await,
            Outcome::Failed { code, message, retry } => {
                if will_retry(read) {
                    return self.put_off(item, *retry).await;
                }
                self.settle_as(item, ItemState::Failed).await?;
                self.complain(&item.url, code, message).await
            }
        }
    }

    async fn settle_not_kept(&mut self, read: &ReadItem, validators: &Validators) -> Result<()> {
        let known = Read {
            known_as: Some(KnownAs::NotKept),
            moved_to: None,
            document_id: read.item.document_id,
            validators,
            body_hash: None,
            text_hash: None,
            reader_version: Some(text::reader_version(self.app.extractor.media())),
            links: &text::lines(&read.reading.found),
        };
        self.settle_read(&read.item, ItemState::Skipped, known).await
    }

    async fn settle_same(&mut self, item: &Item, validators: Option<&Validators>) -> Result<()> {
        let state = match (item.known_as(), item.document_id) {
            (Some(KnownAs::Moved), _) => ItemState::Moved,
            (Some(KnownAs::NotKept), _) => ItemState::Skipped,
            (_, None) => ItemState::Duplicate,
            (_, Some(_)) => ItemState::Unchanged,
        };
        self.count(state);
        let change = Change {
            is_same: true,
            validators,
            ..Change::default()
        };
        let place = self.place();
        items::settle(&mut self.write, place, &item.key, state, &change, self.now).await
    }

    async fn settle_as(&mut self, item: &Item, state: ItemState) -> Result<()> {
        let place = self.place();
        items::settle(
            &mut self.write,
            place,
            &item.key,
            state,
            &Change::default(),
            self.now,
        )
        .await
    }

    async fn settle_read(&mut self, item: &Item, state: ItemState, known: Read<'_>) -> Result<()> {
        self.count(state);
        let change = Change {
            read: Some(known),
            ..Change::default()
        };
        let place = self.place();
        items::settle(&mut self.write, place, &item.key, state, &change, self.now).await
    }

    /// Leaves an item waiting for another attempt.
    async fn put_off(&mut self, item: &Item, retry: Retry) -> Result<()> {
        let exponent = u32::try_from(item.attempts).unwrap_or_default().min(8);
        let own = FIRST_PAUSE * 4_i32.pow(exponent);
        let pause = match retry {
            Retry::After(asked) => TimeDelta::from_std(asked).unwrap_or(LONGEST_PAUSE).max(own),
            _ => own,
        };
        let change = Change {
            attempts: Some(item.attempts + 1),
            retry_at: Some(self.now + pause.min(LONGEST_PAUSE)),
            ..Change::default()
        };
        let place = self.place();
        items::settle(
            &mut self.write,
            place,
            &item.key,
            ItemState::Waiting,
            &change,
            self.now,
        )
        .await
    }

    /// The item that another one names as itself takes over its document, so that what hangs on the document stays.
    async fn settle_moved(&mut self, read: &ReadItem, to: &str, validators: &Validators) -> Result<()> {
        let (item, place) = (&read.item, self.place());
        let mut document_id = item.document_id;
        let target = read.reading.found.iter().find(|found| found.key == to);
        if let (Some(id), Some(target)) = (document_id, target)
            && items::hand_over(&mut self.write, place, to, id, item.text_hash.as_deref()).await?
        {
            self.ahead.forget();
            documents::rename(&mut self.write, place, id, to, &target.url, self.now).await?;
            document_id = None;
        }
        let known = Read {
            known_as: Some(KnownAs::Moved),
            moved_to: Some(to),
            document_id,
            validators,
            body_hash: None,
            text_hash: None,
            reader_version: Some(text::reader_version(self.app.extractor.media())),
            links: "",
        };
        self.settle_read(item, ItemState::Moved, known).await
    }

    /// A text that is there already is no new version of anything. Of several items with one text, the first in the
    /// order of reading has the document, whichever was read first.
    async fn settle_content(&mut self, read: &ReadItem, content: &Content) -> Result<()> {
        let (item, place) = (&read.item, self.place());
        let file_key = read.file_key.as_deref();
        let is_same_text = item.text_hash.as_deref() == Some(content.text_hash.as_str());
        let (state, document_id) = if is_same_text && item.document_id.is_some() {
            self.superfluous.extend(read.file_key.clone());
            self.take_over_facts(item, content).await?;
            (ItemState::Unchanged, item.document_id)
        } else {
            let owner = self
                .ahead
                .owner_of(&mut self.write, place, &item.key, &content.text_hash)
                .await?;
            match owner {
                Some(owner) if (owner.depth, owner.key.as_str()) < (item.depth, item.key.as_str()) => {
                    self.superfluous.extend(read.file_key.clone());
                    if item.document_id.is_some() {
                        return self.settle_doubtful(read).await;
                    }
                    (ItemState::Duplicate, None)
                }
                Some(owner) if item.document_id.is_none() => {
                    self.superfluous.extend(read.file_key.clone());
                    self.release(&owner).await?;
                    documents::rename(
                        &mut self.write,
                        place,
                        owner.document_id,
                        &item.key,
                        &item.url,
                        self.now,
                    )
                    .await?;
                    (owner.state_to_inherit(), Some(owner.document_id))
                }
                Some(owner) => {
                    self.release(&owner).await?;
                    self.give_way(Some(owner.document_id)).await?;
                    match self.make_version(item, content, file_key).await? {
                        Some(made) => made,
                        None => return self.refuse_for_room(item).await,
                    }
                }
                None => match self.make_version(item, content, file_key).await? {
                    Some(made) => made,
                    None => return self.refuse_for_room(item).await,
                },
            }
        };
        let known = Read {
            known_as: Some(KnownAs::Page),
            moved_to: None,
            document_id,
            validators: &content.validators,
            body_hash: Some(&content.body_hash),
            text_hash: Some(&content.text_hash),
            reader_version: Some(text::reader_version(self.app.extractor.media())),
            links: &text::lines(&read.reading.found),
        };
        self.settle_read(item, state, known).await
    }

    /// Takes its document from an item.
    async fn release(&mut self, owner: &Owner) -> Result<()> {
        self.ahead.forget();
        let place = self.place();
        items::release_document(&mut self.write, place, &owner.key).await
    }

    /// A page may say something else of itself with the same text: when it was published, what it is about.
    async fn take_over_facts(&mut self, item: &Item, content: &Content) -> Result<()> {
        if let (File::Reading(extracted), Some(id)) = (&content.file, item.document_id) {
            let (facts, place) = (Facts::of(extracted), self.place());
            if facts::update(&mut self.write, place.tenant_id, id, &facts, self.now).await? {
                labels::tell(self.app, &mut self.write, place.tenant_id, &[id]).await?;
            }
        }
        Ok(())
    }

    /// An item whose own document says something else than what it shows now, which is another one's text. The document
    /// stays as it is until the end of the run: where a whole site shows one text, a login perhaps, that is no reason to
    /// forget what it said before.
    async fn settle_doubtful(&mut self, read: &ReadItem) -> Result<()> {
        let item = &read.item;
        let known = Read {
            known_as: Some(KnownAs::Page),
            moved_to: None,
            document_id: item.document_id,
            // What it shows is not what the document has: the next run reads it anew.
            validators: &Validators::default(),
            body_hash: None,
            text_hash: item.text_hash.as_deref(),
            reader_version: None,
            links: &text::lines(&read.reading.found),
        };
        self.settle_read(item, ItemState::Duplicate, known).await
    }

    /// The item's document in its new version; none when the chatbot may have no more documents.
    async fn make_version(
        &mut self,
        item: &Item,
        content: &Content,
        file_key: Option<&str>,
    ) -> Result<Option<(ItemState, Option<DocumentId>)>> {
        let place = self.place();
        let file_key = file_key.ok_or_else(|| crate::error::Error::internal("new content has no file"))?;
        if let Some(id) = item.document_id
            && let Some(old) =
                documents::update(&mut self.write, place, id, item, content, file_key, self.now).await?
        {
            self.ahead.is_renamed(id);
            self.superfluous.push(old);
            self.to_index.push((id, file_key.to_owned()));
            return Ok(Some((ItemState::Changed, Some(id))));
        }
        if self.room().await? < 1 {
            self.superfluous.push(file_key.to_owned());
            return Ok(None);
        }
        let chatbot_id = self.hold.chatbot_id;
        let named = self.ahead.named(&mut self.write, place, &item.key).await?;
        let id = named.unwrap_or_else(DocumentId::new);
        documents::put(
            &mut self.write,
            place,
            (id, chatbot_id),
            item,
            content,
            file_key,
            self.now,
        )
        .await?;
        self.room = self.room.map(|room| room - 1);
        self.to_index.push((id, file_key.to_owned()));
        Ok(Some((ItemState::New, Some(id))))
    }

    /// A document whose text another one has goes.
    async fn give_way(&mut self, document_id: Option<DocumentId>) -> Result<()> {
        let Some(id) = document_id else { return Ok(()) };
        let place = self.place();
        self.superfluous
            .extend(documents::list_files(&mut self.write, place, &[id]).await?);
        self.ahead.forget();
        self.progress.removed += documents::delete(self.app, &mut self.write, place, &[id]).await?;
        self.removed.push(id);
        Ok(())
    }

    async fn refuse_for_room(&mut self, item: &Item) -> Result<()> {
        self.settle_as(item, ItemState::Failed).await?;
        let message = "This chatbot has as many documents as it may have. Delete some, or narrow the source, and sync again.";
        self.complain(&item.url, "too_many_documents", message).await
    }

    /// Notes a failure.
    async fn complain(&mut self, url: &str, code: &str, message: &str) -> Result<()> {
        self.progress.failed += 1;
        let place = self.place();
        documents::insert_failure(&mut self.write, place, url, code, message, self.now).await
    }

    /// How many documents more the chatbot may have.
    async fn room(&mut self) -> Result<i64> {
        if let Some(room) = self.room {
            return Ok(room);
        }
        // Held: another run of the chatbot must not fill the same room.
        let (tenant_id, chatbot_id) = (self.hold.place.tenant_id, self.hold.chatbot_id);
        knowledge_store::hold_upload_source(&mut self.write, tenant_id, chatbot_id).await?;
        let count = knowledge_store::count_of_chatbot(&mut self.write, tenant_id, chatbot_id).await?;
        let room = self.app.config.limits.documents_per_chatbot - count;
        self.room = Some(room);
        Ok(room)
    }

    fn count(&mut self, state: ItemState) {
        match state {
            ItemState::New => self.progress.new += 1,
            ItemState::Changed => self.progress.changed += 1,
            ItemState::Unchanged => self.progress.unchanged += 1,
            _ => {}
        }
    }
}
