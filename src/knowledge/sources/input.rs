//! What an owner may set, checked: turns the fields of a request into settings and secrets. One set of fields serves
//! making a source and changing it: what is left out stays as it is, or gets its default.

use std::collections::{BTreeMap, BTreeSet};

use http::header;
use ingest::loader::web::{Credentials, Patterns};
use outbound::Refusal;
use url::Url;

use super::fields::{DriveInput, PagesInput, SitemapInput, WebsiteInput, put};
use super::settings::{Drive, Fetching, Pages, Settings, Sitemap, Website};
use super::{Secrets, SourceKind};
use crate::app::App;
use crate::error::{Error, Result};
use crate::integrations::google;

/// Longest address in characters.
const MAX_URL_CHARS: usize = 2_000;

const MAX_USER_CHARS: usize = 255;
const MAX_PASSWORD_CHARS: usize = 1_024;

const MAX_PATTERNS: usize = 100;
const MAX_PATTERN_CHARS: usize = 500;

/// Longest pause between two requests: a minute.
const MAX_DELAY_MS: u64 = 60_000;

const MAX_DRIVE_FILES: usize = 1_000;
const MAX_DRIVE_ID_CHARS: usize = 200;
const MAX_CREDENTIALS_BYTES: usize = 32 * 1024;

/// The settings of one kind, of which at most one may be given.
#[derive(Debug, Default)]
pub(super) struct SettingsInput {
    pub website: Option<WebsiteInput>,
    pub sitemap: Option<SitemapInput>,
    pub pages: Option<PagesInput>,
    pub drive: Option<DriveInput>,
}

impl SettingsInput {
    /// The settings of a new source.
    pub(super) fn make(self, app: &App, kind: SourceKind) -> Result<(Settings, Secrets)> {
        self.check_kind(kind)?;
        let crawl = &app.config.crawl;
        let given = match kind {
            SourceKind::Website => self.website.is_some(),
            SourceKind::Sitemap => self.sitemap.is_some(),
            SourceKind::Pages => self.pages.is_some(),
            SourceKind::Drive => self.drive.is_some(),
            SourceKind::Upload | SourceKind::Push => true,
        };
        if !given {
            return Err(Error::invalid(
                "settings_missing",
                kind.name(),
                format!(
                    "a source of kind {0} needs its settings in the field {0}",
                    kind.name()
                ),
            ));
        }
        let nowhere = Url::parse("about:blank").expect("a constant");
        let mut settings = match kind {
            SourceKind::Upload => Settings::Upload,
            SourceKind::Push => Settings::Push,
            SourceKind::Website => Settings::Website(Website {
                url: nowhere,
                max_pages: crawl.max_pages,
                max_depth: crawl.max_depth,
                include: Vec::new(),
                exclude: Vec::new(),
                subdomains: false,
                keep_query: true,
                shrink_limit_percent: crawl.shrink_limit_percent,
                fetching: Fetching::default(),
            }),
            SourceKind::Sitemap => Settings::Sitemap(Sitemap {
                url: nowhere,
                max_pages: crawl.max_pages,
                include: Vec::new(),
                exclude: Vec::new(),
                shrink_limit_percent: crawl.shrink_limit_percent,
                fetching: Fetching::default(),
            }),
            SourceKind::Pages => Settings::Pages(Pages {
                urls: Vec::new(),
                shrink_limit_percent: crawl.shrink_limit_percent,
                fetching: Fetching::default(),
            }),
            SourceKind::Drive => Settings::Drive(Drive {
                folder_id: None,
                file_ids: Vec::new(),
                shared_drive_id: None,
                own_credentials: false,
                shrink_limit_percent: crawl.shrink_limit_percent,
            }),
        };
        let mut secrets = Secrets::default();
        self.apply(app, &mut settings, &mut secrets)?;
        if let Settings::Pages(Pages { urls, .. }) = &settings
            && urls.is_empty()
        {
            return Err(invalid_urls(app));
        }
        Ok((settings, secrets))
    }

    /// Changes `settings` and `secrets` by what is given. Secrets stay with the hosts that they were given for.
    pub(super) fn change(self, app: &App, settings: &mut Settings, secrets: &mut Secrets) -> Result<()> {
        self.check_kind(settings.kind())?;
        let had_origins = origins(settings);
        let (had_headers, had_password) = (!secrets.headers.is_empty(), secrets.password.is_some());
        let named = self
            .website
            .as_ref()
            .map(WebsiteInput::names_secrets)
            .or(self.sitemap.as_ref().map(SitemapInput::names_secrets))
            .or(self.pages.as_ref().map(PagesInput::names_secrets));
        let (names_headers, names_password) = named.unwrap_or_default();
        self.apply(app, settings, secrets)?;
        let carries_over = (had_headers && !names_headers) || (had_password && !names_password);
        if carries_over && !origins(settings).is_subset(&had_origins) {
            return Err(Error::invalid(
                "secrets_of_another_host",
                settings.kind().name(),
                "the source's headers or password were given for other hosts: give them again for these, or null to remove them",
            ));
        }
        Ok(())
    }

    fn check_kind(&self, kind: SourceKind) -> Result<()> {
        for (given, own) in [
            (self.website.is_some(), SourceKind::Website),
            (self.sitemap.is_some(), SourceKind::Sitemap),
            (self.pages.is_some(), SourceKind::Pages),
            (self.drive.is_some(), SourceKind::Drive),
        ] {
            if given && own != kind {
                return Err(Error::invalid(
                    "settings_of_another_kind",
                    own.name(),
                    format!(
                        "a source of kind {} takes no settings of kind {}",
                        kind.name(),
                        own.name()
                    ),
                ));
            }
        }
        Ok(())
    }

    fn apply(self, app: &App, settings: &mut Settings, secrets: &mut Secrets) -> Result<()> {
        match settings {
            Settings::Upload | Settings::Push => return Ok(()),
            Settings::Website(website) => {
                let mut given = self.website.unwrap_or_default();
                put_url(app, &mut website.url, given.url.take(), "website.url")?;
                put(&mut website.max_pages, given.max_pages);
                put(&mut website.max_depth, given.max_depth);
                put(&mut website.include, given.include.take());
                put(&mut website.exclude, given.exclude.take());
                put(&mut website.subdomains, given.subdomains);
                put(&mut website.keep_query, given.keep_query);
                given.apply_common(&mut website.fetching, &mut website.shrink_limit_percent, secrets);
            }
            Settings::Sitemap(sitemap) => {
                let mut given = self.sitemap.unwrap_or_default();
                put_url(app, &mut sitemap.url, given.url.take(), "sitemap.url")?;
                put(&mut sitemap.max_pages, given.max_pages);
                put(&mut sitemap.include, given.include.take());
                put(&mut sitemap.exclude, given.exclude.take());
                given.apply_common(&mut sitemap.fetching, &mut sitemap.shrink_limit_percent, secrets);
            }
            Settings::Pages(pages) => {
                let mut given = self.pages.unwrap_or_default();
                if let Some(urls) = given.urls.take() {
                    pages.urls = read_urls(app, &urls)?;
                }
                given.apply_common(&mut pages.fetching, &mut pages.shrink_limit_percent, secrets);
            }
            Settings::Drive(drive) => {
                let given = self.drive.unwrap_or_default();
                put(&mut drive.folder_id, given.folder_id);
                put(&mut drive.file_ids, given.file_ids);
                put(&mut drive.shared_drive_id, given.shared_drive_id);
                put(&mut drive.shrink_limit_percent, given.shrink_limit_percent);
                put(&mut secrets.drive_credentials, given.credentials);
                drive.own_credentials = secrets.drive_credentials.is_some();
            }
        }
        check(app, settings, secrets)
    }
}

fn put_url(app: &App, target: &mut Url, given: Option<String>, field: &str) -> Result<()> {
    match given {
        Some(text) => *target = read_url(app, &text, field)?,
        None if target.scheme() == "about" => {
            return Err(Error::invalid(
                "url_missing",
                field,
                format!("{field} is missing"),
            ));
        }
        None => {}
    }
    Ok(())
}

/// An address that may be fetched, as far as that can be told without asking for it.
pub(super) fn read_url(app: &App, text: &str, field: &str) -> Result<Url> {
    let invalid = |message: String| Error::invalid("invalid_url", field, message);
    if text.chars().count() > MAX_URL_CHARS {
        return Err(invalid(format!(
            "{field} must have at most {MAX_URL_CHARS} characters"
        )));
    }
    let text = text.trim();
    let is_broken = |character: char| character.is_whitespace() || character.is_control();
    let parsed = Url::parse(text)
        .ok()
        .filter(|url| !text.contains(is_broken) && is_possible_host(url));
    let mut url = parsed.ok_or_else(|| {
        invalid(format!(
            "{field} must be a whole address, for example https://www.example.com/"
        ))
    })?;
    url.set_fragment(None);
    match app.guard.judge_url(&url) {
        Ok(()) => Ok(url),
        Err(Refusal::Scheme { .. } | Refusal::NoHost) => {
            Err(invalid(format!("{field} must be an http or https address")))
        }
        Err(Refusal::Credentials) => Err(invalid(format!(
            "{field} must hold no user name or password: give them in basic_auth"
        ))),
        Err(Refusal::LocalName { .. } | Refusal::Address { .. }) => Err(Error::invalid(
            "url_not_public",
            field,
            format!("{field} leads to no public address: only public sites can be read"),
        )),
    }
}

/// Whether the address's host, where it has one by name, is within what names may be (RFC 1035).
fn is_possible_host(url: &Url) -> bool {
    let Some(url::Host::Domain(name)) = url.host() else {
        return true;
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

fn invalid_urls(app: &App) -> Error {
    let most = app.config.crawl.max_pages;
    Error::invalid(
        "invalid_urls",
        "pages.urls",
        format!("pages.urls must name 1 to {most} pages"),
    )
}

fn read_urls(app: &App, urls: &[String]) -> Result<Vec<Url>> {
    let most = app.config.crawl.max_pages as usize;
    if urls.is_empty() || urls.len() > most {
        return Err(invalid_urls(app));
    }
    let mut seen = BTreeSet::new();
    let mut read = Vec::with_capacity(urls.len());
    for (position, text) in urls.iter().enumerate() {
        let url = read_url(app, text, &format!("pages.urls[{position}]"))?;
        if seen.insert(url.clone()) {
            read.push(url);
        }
    }
    Ok(read)
}

/// What must hold of the whole, whoever set which part of it.
fn check(app: &App, settings: &Settings, secrets: &Secrets) -> Result<()> {
    let kind = settings.kind().name();
    let crawl = &app.config.crawl;
    let in_range = |name: &str, value: u64, least: u64, most: u64| {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        let field = format!("{kind}.{name}");
        let message = format!("{field} must be {least} to {most}");
        Err(Error::invalid("out_of_range", &field, message))
    };
    match settings {
        Settings::Upload | Settings::Push | Settings::Pages(_) => {}
        Settings::Website(website) => {
            in_range("max_pages", website.max_pages.into(), 1, crawl.max_pages.into())?;
            in_range("max_depth", website.max_depth.into(), 0, crawl.max_depth.into())?;
            check_patterns(&website.include, "website.include")?;
            check_patterns(&website.exclude, "website.exclude")?;
        }
        Settings::Sitemap(sitemap) => {
            in_range("max_pages", sitemap.max_pages.into(), 1, crawl.max_pages.into())?;
            check_patterns(&sitemap.include, "sitemap.include")?;
            check_patterns(&sitemap.exclude, "sitemap.exclude")?;
        }
        Settings::Drive(drive) => check_drive(drive, secrets)?,
    }
    if let Some(percent) = settings.shrink_limit_percent() {
        in_range("shrink_limit_percent", percent.into(), 0, 100)?;
    }
    if let Some(fetching) = settings.fetching() {
        in_range("delay_ms", fetching.delay_ms.unwrap_or_default(), 0, MAX_DELAY_MS)?;
        if fetching.render && crawl.chromium.is_empty() {
            return Err(Error::invalid(
                "rendering_unavailable",
                &format!("{kind}.render"),
                "this installation has no browser to render pages with: leave render out",
            ));
        }
        if let Some(site) = settings.addresses().first() {
            check_headers(&secrets.headers, site, kind)?;
        }
        check_basic_auth(fetching, secrets, kind)?;
    }
    Ok(())
}

fn check_patterns(patterns: &[String], field: &str) -> Result<()> {
    if patterns.len() > MAX_PATTERNS {
        return Err(Error::invalid(
            "invalid_pattern",
            field,
            format!("{field} must have at most {MAX_PATTERNS} patterns"),
        ));
    }
    for (position, pattern) in patterns.iter().enumerate() {
        let field = format!("{field}[{position}]");
        if pattern.trim().is_empty() || pattern.chars().count() > MAX_PATTERN_CHARS {
            let message = format!("a pattern must have 1 to {MAX_PATTERN_CHARS} characters");
            return Err(Error::invalid("invalid_pattern", &field, message));
        }
        if let Err(error) = Patterns::parse(&[pattern]) {
            return Err(Error::invalid("invalid_pattern", &field, error.to_string()));
        }
    }
    Ok(())
}

/// What the reader itself would refuse to send.
fn check_headers(headers: &BTreeMap<String, String>, site: &Url, kind: &str) -> Result<()> {
    let headers: Vec<(String, String)> = headers.clone().into_iter().collect();
    match Credentials::new(site, &headers, None) {
        Ok(_) => Ok(()),
        // The error names the header, never its value: that is a secret.
        Err(error) => Err(Error::invalid(
            "invalid_headers",
            &format!("{kind}.headers"),
            error.to_string(),
        )),
    }
}

fn check_basic_auth(fetching: &Fetching, secrets: &Secrets, kind: &str) -> Result<()> {
    let refuse = |message: &str| {
        Err(Error::invalid(
            "invalid_basic_auth",
            &format!("{kind}.basic_auth"),
            message.to_owned(),
        ))
    };
    let (Some(user), Some(password)) = (&fetching.basic_auth_user, &secrets.password) else {
        return Ok(());
    };
    if user.is_empty() || user.chars().count() > MAX_USER_CHARS || user.contains(':') {
        return refuse("the user must have 1 to 255 characters and no colon");
    }
    if password.chars().count() > MAX_PASSWORD_CHARS {
        return refuse("the password must have at most 1024 characters");
    }
    if user.chars().chain(password.chars()).any(char::is_control) {
        return refuse("user and password must not hold control characters");
    }
    if secrets.headers.contains_key(header::AUTHORIZATION.as_str()) {
        return refuse("give either basic_auth or the header authorization, not both");
    }
    Ok(())
}

fn check_drive(drive: &Drive, secrets: &Secrets) -> Result<()> {
    if drive.folder_id.is_none() && drive.shared_drive_id.is_none() && drive.file_ids.is_empty() {
        return Err(Error::invalid(
            "drive_scope_missing",
            "drive",
            "name what is to be read: folder_id, shared_drive_id or file_ids",
        ));
    }
    if drive.file_ids.len() > MAX_DRIVE_FILES {
        return Err(Error::invalid(
            "invalid_drive_id",
            "drive.file_ids",
            format!("at most {MAX_DRIVE_FILES} files"),
        ));
    }
    let ids = drive
        .folder_id
        .iter()
        .chain(&drive.shared_drive_id)
        .chain(&drive.file_ids);
    for id in ids {
        let is_id = !id.is_empty()
            && id.len() <= MAX_DRIVE_ID_CHARS
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !is_id {
            return Err(Error::invalid(
                "invalid_drive_id",
                "drive",
                "an id of Drive has letters, digits, - and _: it is the last part of the file's or folder's address",
            ));
        }
    }
    if let Some(credentials) = &secrets.drive_credentials {
        let is_small = credentials.to_string().len() <= MAX_CREDENTIALS_BYTES;
        let refusal = google::check_credentials(credentials).err();
        if let Some(reason) = refusal
            .map(|error| error.to_string())
            .or((!is_small).then(|| "they are too long".to_owned()))
        {
            return Err(Error::invalid(
                "invalid_credentials",
                "drive.credentials",
                format!("credentials must be the JSON key of a service account: {reason}"),
            ));
        }
    }
    Ok(())
}

/// Scheme, host and port of all addresses of a source.
fn origins(settings: &Settings) -> BTreeSet<String> {
    let addresses = settings.addresses().into_iter();
    addresses.map(|url| url.origin().ascii_serialization()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_as_long_as_names_may_be() {
        let is_possible = |text: &str| is_possible_host(&Url::parse(text).expect("an address"));

        for text in [
            "http://example.com./",
            "http://[::1]/",
            "http://b\u{fc}cher.example/",
        ] {
            assert!(is_possible(text), "{text}");
        }
        let long = format!("http://{}.example/", "a".repeat(64));
        let many = format!("http://{}example/", "abc.".repeat(70));
        for text in [long.as_str(), many.as_str(), "http://a..b/"] {
            assert!(!is_possible(text), "{text}");
        }
    }
}
