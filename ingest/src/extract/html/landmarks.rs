//! What the name, role, class and id of an element say about the place of its text on the page.

use html5ever::tokenizer::Tag;

use super::tag::attribute;

/// Classes of one element looked at, in bytes.
const MAX_NAMES_BYTES: usize = 1_000;

/// What is said of an element. Nothing of it is certain: who wrote the page was free in the choice of names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marks(u16);

impl Marks {
    /// Says that it holds the main content.
    pub(super) const MAIN: Self = Self(1);
    /// Is named like content.
    pub(super) const CONTENT: Self = Self(1 << 1);
    /// Is about the page's own working, never about its subject: cookies, sharing, menus.
    pub(super) const MACHINERY: Self = Self(1 << 2);
    /// Is named like something beside the content: related pages, promotion, author.
    pub(super) const BESIDE: Self = Self(1 << 3);
    /// Visitors' comments.
    pub(super) const COMMENTS: Self = Self(1 << 4);
    /// A header of the page or of an article.
    pub(super) const HEADER: Self = Self(1 << 5);
    /// A button or a form.
    pub(super) const CONTROL: Self = Self(1 << 6);
    /// One of several articles, maybe.
    pub(super) const ARTICLE: Self = Self(1 << 7);

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Reads the marks off a start tag.
    pub(super) fn of(tag: &Tag) -> Self {
        let mut marks = Self::default();
        match &*tag.name {
            "main" => marks.add(Self::MAIN),
            "article" => marks.add(Self::ARTICLE),
            "aside" => marks.add(Self::BESIDE),
            "header" => marks.add(Self::HEADER),
            "button" | "form" | "fieldset" => marks.add(Self::CONTROL),
            "search" => marks.add(Self::MACHINERY),
            "html" | "body" => return marks,
            _ => {}
        }
        for attribute in &tag.attrs {
            let value: &str = &attribute.value;
            match &*attribute.name.local {
                "role" => marks.add(of_role(value)),
                "itemprop" if matches!(value, "articleBody" | "text" | "reviewBody") => marks.add(Self::MAIN),
                "class" | "id" => marks.add(of_names(value)),
                _ => {}
            }
        }
        if attribute(tag, "data-nosnippet").is_some() {
            marks.add(Self::BESIDE);
        }
        marks
    }
}

fn of_role(role: &str) -> Marks {
    match role.trim() {
        "main" => Marks::MAIN,
        "article" => Marks::ARTICLE,
        "complementary" => Marks::BESIDE,
        "banner" => Marks::HEADER,
        "dialog" | "alertdialog" | "menu" | "menubar" | "toolbar" => Marks::MACHINERY,
        _ => Marks::default(),
    }
}

fn of_names(names: &str) -> Marks {
    let mut marks = Marks::default();
    let mut cut = names.len().min(MAX_NAMES_BYTES);
    while !names.is_char_boundary(cut) {
        cut -= 1;
    }
    for name in names[..cut].split_ascii_whitespace() {
        marks.add(of_name(name));
    }
    marks
}

/// One class name or id, such as `entry-content`, `relatedPosts` or `site_footer`.
fn of_name(name: &str) -> Marks {
    let lower = name.to_ascii_lowercase();
    let mut marks = of_whole(&lower);
    let mut previous = "";
    for word in words(name, &lower) {
        // `has-sidebar` and the like are said of what stands beside it.
        if !matches!(
            previous,
            "has" | "with" | "no" | "not" | "without" | "hide" | "next"
        ) {
            marks.add(of_word(word));
        }
        marks.add(of_pair(previous, word));
        previous = word;
    }
    marks
}

/// The words of a name in lower case: parts between signs, digits and changes of case.
fn words<'a>(name: &'a str, lower: &'a str) -> impl Iterator<Item = &'a str> {
    let bytes = name.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !bytes[at].is_ascii_alphabetic() {
            at += 1;
        }
        let start = at;
        while at < bytes.len() && bytes[at].is_ascii_alphabetic() {
            at += 1;
            if at < bytes.len() && bytes[at].is_ascii_uppercase() && bytes[at - 1].is_ascii_lowercase() {
                break;
            }
        }
        (start < at).then(|| &lower[start..at])
    })
}

fn of_whole(name: &str) -> Marks {
    match name {
        "widget"
        | "hidden-print"
        | "noprint"
        | "no-print"
        | "print-only"
        | "d-print-block"
        | "visible-print"
        | "visible-print-block"
        | "sr-only"
        | "visually-hidden"
        | "screen-reader-text"
        | "meta"
        | "bottom"
        | "tags"
        | "tag-list"
        | "teaser"
        | "teasers" => Marks::BESIDE,
        "content" | "entry" | "post" | "story" | "article" => Marks::CONTENT,
        _ if name.starts_with("widget_") => Marks::BESIDE,
        _ => Marks::default(),
    }
}

fn of_word(word: &str) -> Marks {
    match word {
        "nav" | "navbar" | "navigation" | "subnav" | "topnav" | "navi" | "menu" | "submenu" | "megamenu"
        | "breadcrumb" | "breadcrumbs" | "footer" | "cookie" | "cookies" | "cookiebar" | "cookiebanner"
        | "consent" | "gdpr" | "share" | "sharing" | "sharebar" | "sharedaddy" | "sharethis" | "addthis"
        | "addtoany" | "shariff" | "social" | "socials" | "socialmedia" | "pagination" | "pager"
        | "paging" | "pagenavi" | "login" | "signin" | "signup" | "popup" | "modal" | "lightbox"
        | "overlay" | "skiplink" | "skiplinks" | "toolbar" | "searchform" | "searchbox" | "ad" | "ads"
        | "advert" | "adverts" | "advertisement" | "advertising" | "adsense" | "adslot" | "adbox" | "dfp"
        | "outbrain" | "taboola" | "paywall" | "captcha" | "recaptcha" => Marks::MACHINERY,
        "sidebar" | "related" | "recommended" | "recommendation" | "recommendations" | "recirc"
        | "newsletter" | "subscribe" | "subscription" | "promo" | "promotion" | "sponsor" | "sponsored"
        | "sponsors" | "byline" | "author" | "authors" | "authorbox" | "bio" | "tagcloud" | "taglist"
        | "postmeta" | "copyright" | "rating" | "ratings" | "masthead" | "topbar" | "banner" | "trending"
        | "popular" | "mostread" | "readmore" | "infobox" | "seealso" | "aside" | "caption" => Marks::BESIDE,
        "comment" | "comments" | "commentlist" | "disqus" | "respond" | "trackback" | "pingback" => {
            Marks::COMMENTS
        }
        "articlebody" | "articletext" | "postcontent" | "postbody" | "entrycontent" | "storybody"
        | "storytext" | "maincontent" => Marks::CONTENT,
        _ => Marks::default(),
    }
}

/// Two words in a row that say more than each of them.
fn of_pair(first: &str, second: &str) -> Marks {
    match (first, second) {
        ("article" | "post" | "entry" | "story" | "news" | "blog" | "page", "content" | "body" | "text")
        | ("main", "content")
        | ("content", "main" | "body" | "text")
        | ("body", "copy" | "text") => Marks::CONTENT,
        ("entry" | "post" | "article", "meta" | "footer" | "tags" | "info" | "date")
        | ("most", "read" | "popular" | "viewed")
        | ("read" | "see" | "view", "more" | "also" | "next" | "all")
        | ("more", "articles" | "stories" | "news" | "posts" | "from" | "on")
        | ("author" | "about", "bio" | "box" | "author" | "info")
        | (
            "recent" | "latest" | "similar" | "other" | "popular",
            "posts" | "articles" | "news" | "stories",
        )
        | ("tag", "cloud" | "list" | "links")
        | ("back", "top")
        | ("call", "action")
        | ("side", "bar" | "col" | "column") => Marks::BESIDE,
        _ => Marks::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_word_by_word() {
        for (name, marks) in [
            ("entry-content", Marks::CONTENT),
            ("articleBody", Marks::CONTENT),
            ("relatedPosts", Marks::BESIDE),
            ("site_footer", Marks::MACHINERY),
            ("js-cookie-notice", Marks::MACHINERY),
            ("elementor-widget-text", Marks::default()),
            ("shareholders", Marks::default()),
            ("adapter", Marks::default()),
            ("COMMENTS", Marks::COMMENTS),
            ("o-section--has-ads", Marks::default()),
            ("größe-🙂", Marks::default()),
        ] {
            assert_eq!(of_name(name), marks, "{name}");
        }
    }
}
