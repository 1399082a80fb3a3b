//! What a run tells its owner besides single failures.

/// Something about a run that its owner should know, besides single failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// There is more than the source's limit of pages.
    PageLimit,
    /// A start page could not be read.
    StartUnreadable,
    /// A site's rules for crawlers could not be read, so it was left alone.
    RobotsUnavailable,
    /// A site map could not be read.
    SitemapUnreadable,
    /// Too much of the site failed for its silence about a page to mean anything.
    ManyFailures,
    /// Too many documents vanished at once: they are kept.
    RemovalsHeld,
    /// Pages that say that there is none were left out, although their server says that they are there.
    SoftNotFound,
    /// Pages link to pictures or recordings that nobody is configured to read.
    MediaLeftOut,
    /// Owners' changes of chunks have no passage to hold for.
    ChangesRest,
}

impl Note {
    pub(super) const ALL: [Self; 9] = [
        Self::PageLimit,
        Self::StartUnreadable,
        Self::RobotsUnavailable,
        Self::SitemapUnreadable,
        Self::ManyFailures,
        Self::RemovalsHeld,
        Self::SoftNotFound,
        Self::MediaLeftOut,
        Self::ChangesRest,
    ];

    /// Whether it says that something is not as it should be.
    pub(super) const fn is_doubt(self) -> bool {
        !matches!(
            self,
            Self::PageLimit | Self::SoftNotFound | Self::MediaLeftOut | Self::ChangesRest
        )
    }

    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::PageLimit => "page_limit",
            Self::StartUnreadable => "start_unreadable",
            Self::RobotsUnavailable => "robots_unavailable",
            Self::SitemapUnreadable => "sitemap_unreadable",
            Self::ManyFailures => "many_failures",
            Self::RemovalsHeld => "removals_held",
            Self::SoftNotFound => "soft_not_found",
            Self::MediaLeftOut => "media_left_out",
            Self::ChangesRest => "changes_rest",
        }
    }

    /// What it means and what to do, for a person.
    pub const fn message(self) -> &'static str {
        match self {
            Self::PageLimit => {
                "The source has more pages than its limit: the rest was not read. Raise max_pages, or narrow the source with include and exclude."
            }
            Self::StartUnreadable => {
                "A start page could not be read, so pages that were not seen this time are kept."
            }
            Self::RobotsUnavailable => {
                "A site's robots.txt could not be read, so the site was left alone and its pages are kept."
            }
            Self::SitemapUnreadable => {
                "A site map could not be read, so pages that were not seen this time are kept."
            }
            Self::ManyFailures => {
                "Many pages could not be read, so pages that were not seen this time are kept."
            }
            Self::RemovalsHeld => {
                "Unusually many documents vanished at once, so they are kept. If that is right, start a sync with accept_removals."
            }
            Self::SoftNotFound => {
                "Some pages say that there is no such page, so they were left out, although the site answers as if they were there. If they are real, give them titles and first lines of their own."
            }
            Self::MediaLeftOut => {
                "Pages link to pictures or recordings, which were left out: this server has nobody who reads them. Its operator can set extract.ocr_program and extract.transcription_base_url."
            }
            Self::ChangesRest => {
                "Changes that you made to chunks rest, since the words that you made them to have changed. Documents with stale_changes list them."
            }
        }
    }
}
