//! The fields of a request that say what a source reads, one struct for each kind of source.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Secrets;
use super::settings::Fetching;
use crate::http::input::present;

macro_rules! page_settings {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$field_doc])* pub $field: Option<$type>,)*
            /// Sent with each request to the hosts named here, and to no other; at most 20. Kept sealed and never
            /// shown again. Null removes them.
            #[serde(default, deserialize_with = "present")]
            #[schema(value_type = Option<BTreeMap<String, String>>)]
            pub headers: Option<Option<BTreeMap<String, String>>>,
            /// Sent to the hosts named here, and to no other. The password is kept sealed. Null removes both.
            #[serde(default, deserialize_with = "present")]
            #[schema(value_type = Option<BasicAuth>)]
            pub basic_auth: Option<Option<BasicAuth>>,
            /// Render pages in a browser before they are read, where this installation has one.
            pub render: Option<bool>,
            /// Least pause between two requests to one host, 0 to 60000; null: the installation's.
            #[serde(default, deserialize_with = "present")]
            #[schema(value_type = Option<u64>, maximum = 60_000)]
            pub delay_ms: Option<Option<u64>>,
            /// A run that would remove a larger share of the documents removes none, and says so. Up to five may go while
            /// others are left, unless this is 0.
            #[schema(minimum = 0, maximum = 100)]
            pub shrink_limit_percent: Option<u8>,
        }

        impl $name {
            /// Puts what is common to all sources of pages into its place.
            pub(super) fn apply_common(&mut self, fetching: &mut Fetching, shrink_limit_percent: &mut u8, secrets: &mut Secrets) {
                if let Some(headers) = self.headers.take() {
                    secrets.headers = headers
                        .unwrap_or_default()
                        .into_iter()
                        .map(|(name, value)| (name.to_ascii_lowercase(), value))
                        .collect();
                    fetching.header_names = secrets.headers.keys().cloned().collect();
                }
                if let Some(basic_auth) = self.basic_auth.take() {
                    let (user, password) = basic_auth.map(|given| (given.user, given.password)).unzip();
                    fetching.basic_auth_user = user;
                    secrets.password = password;
                }
                put(&mut fetching.render, self.render.take());
                put(&mut fetching.delay_ms, self.delay_ms.take());
                put(shrink_limit_percent, self.shrink_limit_percent.take());
            }

            /// Whether headers, and whether a password, are given anew or taken away.
            pub(super) fn names_secrets(&self) -> (bool, bool) {
                (self.headers.is_some(), self.basic_auth.is_some())
            }
        }
    };
}

page_settings!(
    /// A website, read from `url` on along its links.
    WebsiteInput {
        /// Where reading begins. Its host is the site.
        #[schema(value_type = String, format = "uri", max_length = 2_000, example = "https://www.example.com/help/")]
        url: String,
        /// Pages read, at most; no more than the installation allows.
        #[schema(minimum = 1)]
        max_pages: u32,
        /// Links away from `url`, which is 0; no more than the installation allows.
        #[schema(minimum = 0)]
        max_depth: u32,
        /// Patterns such as `/help/**`: only pages whose path fits one of them, where there are any.
        #[schema(max_items = 100)]
        include: Vec<String>,
        /// Patterns such as `/help/old/**` or `*.pdf`: no page whose path fits one of them.
        #[schema(max_items = 100)]
        exclude: Vec<String>,
        /// Whether hosts below the site's own belong to it; no unless given.
        subdomains: bool,
        /// Whether addresses that differ in their query are different pages; yes unless given.
        keep_query: bool,
    }
);

page_settings!(
    /// The pages that a sitemap lists.
    SitemapInput {
        /// The sitemap, or an index of sitemaps.
        #[schema(value_type = String, format = "uri", max_length = 2_000, example = "https://www.example.com/sitemap.xml")]
        url: String,
        /// Pages read, at most; no more than the installation allows.
        #[schema(minimum = 1)]
        max_pages: u32,
        /// Patterns such as `/help/**`: only pages whose path fits one of them, where there are any.
        #[schema(max_items = 100)]
        include: Vec<String>,
        /// Patterns such as `/help/old/**` or `*.pdf`: no page whose path fits one of them.
        #[schema(max_items = 100)]
        exclude: Vec<String>,
    }
);

page_settings!(
    /// Pages named one by one.
    PagesInput {
        /// These pages and no other.
        #[schema(min_items = 1)]
        urls: Vec<String>,
    }
);

/// A folder with all below it, a shared drive, or single files.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DriveInput {
    /// The folder's id: the last part of its address. Null: none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub folder_id: Option<Option<String>>,
    /// Ids of single files.
    #[schema(max_items = 1_000)]
    pub file_ids: Option<Vec<String>>,
    /// The shared drive's id. Null: none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub shared_drive_id: Option<Option<String>>,
    /// The JSON key of a service account that may see the files. Kept sealed and never shown again. Null removes it:
    /// the source is read with the tenant's Google connection.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    pub credentials: Option<Option<Value>>,
    /// A run that would remove a larger share of the documents removes none, and says so. Up to five may go while
    /// others are left, unless this is 0.
    #[schema(minimum = 0, maximum = 100)]
    pub shrink_limit_percent: Option<u8>,
}

/// Who logs in at the site.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BasicAuth {
    #[schema(max_length = 255)]
    pub user: String,
    #[schema(max_length = 1_024)]
    pub password: String,
}

impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("(hidden)")
    }
}

/// Puts `value` into its place, where there is one.
pub(super) fn put<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}
