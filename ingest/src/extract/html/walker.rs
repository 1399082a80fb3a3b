//! Takes the tokens of a page and makes pieces of text: knows which elements are open, as far as that matters.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use html5ever::LocalName;
use html5ever::tokenizer::{Tag, TagKind, Token, TokenSink, TokenSinkResult};

use super::Reading;
use super::elements::{
    CAPTION, CELL, ITEM, LIST, PAGE, PARAGRAPH, PLAIN, ROW, ROW_GROUP, Role, SCOPE, SKIPPED, TABLE, TERM,
    TERM_LIST, heading_level, is_block, is_void, raw_kind, role_of,
};
use super::facts::Facts;
use super::hidden::HidingRules;
use super::landmarks::Marks;
use super::page::{Apart, ElementId, Page, weight};
use super::tag::attribute;
use crate::extract::table::Table;
use crate::{BlockKind, Limits};

/// Texts of pictures that are remembered to be said once: their number, and the length of one.
const MAX_REMEMBERED: usize = 2_000;
const MAX_REMEMBERED_BYTES: usize = 300;

/// Receives tokens; it has the reading at the end.
#[derive(Debug)]
pub(super) struct Walker(RefCell<State>);

impl Walker {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(RefCell::new(State {
            page: Page::new(limits),
            facts: Facts::default(),
            title: None,
            open: Vec::new(),
            max_depth: limits.max_depth as usize,
            overflow: 0,
            text: String::new(),
            link: None,
            apart: Apart::default(),
            pictures: HashSet::new(),
            tables: Vec::new(),
            raw: None,
            skip: None,
            rules: HidingRules::default(),
        }))
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.borrow().page.is_full()
    }

    pub(super) fn finish(self) -> Reading {
        let mut state = self.0.into_inner();
        state.finish();
        Reading {
            page: state.page,
            facts: state.facts,
            title: state.title,
        }
    }
}

impl TokenSink for Walker {
    type Handle = ();

    fn process_token(&self, token: Token, _line_number: u64) -> TokenSinkResult<()> {
        let mut state = self.0.borrow_mut();
        match token {
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => return state.start(&tag),
            Token::TagToken(tag) => state.end(&tag.name),
            Token::CharacterTokens(text) => state.characters(&text),
            // Comments, doctypes with their entities, and errors are no text.
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

/// An element whose content the tokenizer takes as plain characters; the next tag is its end.
#[derive(Debug)]
struct Raw {
    name: LocalName,
    /// A script that holds data about the page.
    is_structured: bool,
    text: String,
}

/// A link that is open.
#[derive(Debug)]
struct Link {
    /// The number of blocks open around it.
    around: usize,
    /// It leads to a place on the same page.
    is_inside_page: bool,
}

/// An element that is left out with all that is in it.
#[derive(Debug)]
struct Skip {
    name: LocalName,
    /// Elements opened inside, so that their end tags are told from those of elements around.
    inside: HashMap<LocalName, u32>,
}

#[derive(Debug)]
struct Open {
    name: LocalName,
    role: Role,
    element: ElementId,
}

#[derive(Debug)]
struct State {
    page: Page,
    facts: Facts,
    title: Option<String>,
    /// Block elements only: inline ones have no effect on the text, and pages forget to close them.
    open: Vec<Open>,
    max_depth: usize,
    /// Elements beyond the depth that is tracked.
    overflow: usize,
    text: String,
    link: Option<Link>,
    /// What of the text, or of the open row, stands in links or for pictures.
    apart: Apart,
    /// What was said for pictures so far.
    pictures: HashSet<String>,
    tables: Vec<Table>,
    raw: Option<Raw>,
    skip: Option<Skip>,
    rules: HidingRules,
}

impl State {
    fn start(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name: &str = &tag.name;
        self.facts.see(tag);
        self.facts.trail.open(tag);
        if let Some(kind) = raw_kind(name) {
            self.raw = Some(Raw {
                name: tag.name.clone(),
                is_structured: name == "script"
                    && attribute(tag, "type")
                        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/ld+json")),
                text: String::new(),
            });
            return TokenSinkResult::RawData(kind);
        }
        if name == "plaintext" {
            return TokenSinkResult::Plaintext;
        }
        if self.skip.is_some() && !self.ends_skip(name) {
            if !is_void(tag)
                && let Some(skip) = &mut self.skip
            {
                *skip.inside.entry(tag.name.clone()).or_default() += 1;
            }
            return TokenSinkResult::Continue;
        }
        self.skip = None;
        // What lies too deep to be tracked closes nothing of what is around it.
        if self.overflow == 0 {
            self.close_implied(name);
        }
        if self.is_skipped(tag) {
            if !is_void(tag) {
                if is_block(name) {
                    self.flush();
                }
                self.skip = Some(Skip {
                    name: tag.name.clone(),
                    inside: HashMap::new(),
                });
            }
            return TokenSinkResult::Continue;
        }
        match name {
            "br" => self.text.push('\n'),
            "hr" => self.flush(),
            "img" => self.add_alternative(tag),
            "a" => {
                // An address to write to or a number to call is text of its own.
                let leads_to_page =
                    |target: &&str| !(target.starts_with("mailto:") || target.starts_with("tel:"));
                self.link = attribute(tag, "href").filter(leads_to_page).map(|target| Link {
                    around: self.open.len(),
                    is_inside_page: target.starts_with('#'),
                });
            }
            _ if is_block(name) => self.open_block(tag),
            _ => {}
        }
        TokenSinkResult::Continue
    }

    fn is_skipped(&self, tag: &Tag) -> bool {
        let name: &str = &tag.name;
        match name {
            "dialog" => attribute(tag, "open").is_none(),
            // The body is never dropped whole: pages hide it until their script has run.
            "body" | "html" | "main" => false,
            _ => SKIPPED.contains(&name) || self.rules.hide(tag),
        }
    }

    /// Whether a start tag inside a skipped element closes it: paragraphs, items and cells end where the
    /// next one begins.
    fn ends_skip(&self, name: &str) -> bool {
        let Some(skip) = &self.skip else { return false };
        let is_inside = |container: &str| {
            skip.inside
                .get(&LocalName::from(container))
                .is_some_and(|open| *open > 0)
        };
        match &*skip.name {
            "p" => is_block(name),
            "li" => name == "li" && !is_inside("ul") && !is_inside("ol"),
            "dt" | "dd" => matches!(name, "dt" | "dd") && !is_inside("dl"),
            "td" | "th" => matches!(name, "td" | "th" | "tr" | "tbody" | "tfoot") && !is_inside("table"),
            "tr" => matches!(name, "tr" | "tbody" | "tfoot") && !is_inside("table"),
            _ => false,
        }
    }

    fn end(&mut self, name: &LocalName) {
        if let Some(raw) = self.raw.take() {
            self.finish_raw(raw);
            return;
        }
        self.facts.trail.close(name);
        if let Some(skip) = &mut self.skip {
            if let Some(open) = skip.inside.get_mut(name).filter(|open| **open > 0) {
                *open -= 1;
                return;
            }
            let ends_itself = skip.name == *name;
            if ends_itself || self.open.iter().any(|open| open.name == *name) {
                self.skip = None;
            }
            if ends_itself || self.skip.is_some() {
                return;
            }
        }
        if !is_block(name) {
            if &**name == "a" {
                self.link = None;
            }
            return;
        }
        if self.overflow > 0 {
            self.flush();
            self.overflow -= 1;
            return;
        }
        self.close_up_to(name);
    }

    fn characters(&mut self, text: &str) {
        if let Some(raw) = &mut self.raw {
            // Scripts are long and thrown away; style sheets and titles are read up to a limit of their own.
            if raw.is_structured || matches!(&*raw.name, "style" | "title" | "plaintext") {
                raw.text.push_str(text);
            }
            return;
        }
        self.facts.trail.characters(text);
        if self.skip.is_some() {
            return;
        }
        self.count_linked(text);
        if self.is_open("pre") {
            self.text.push_str(text);
            return;
        }
        // Line ends in the source are spaces on the page.
        self.text.extend(text.chars().map(|c| {
            if matches!(c, '\n' | '\r' | '\t' | '\u{c}') {
                ' '
            } else {
                c
            }
        }));
    }

    fn count_linked(&mut self, text: &str) {
        let Some(link) = &self.link else { return };
        // Headings lead to themselves, for readers who want to point at them.
        if !link.is_inside_page || !matches!(self.kind(), BlockKind::Heading { .. }) {
            self.apart.link_letters += weight(text);
        }
    }

    fn finish_raw(&mut self, raw: Raw) {
        match &*raw.name {
            "style" => self.rules.read(&raw.text),
            "title" if self.title.is_none() && self.skip.is_none() => self.title = Some(raw.text),
            _ if raw.is_structured => self.facts.see_structured(&raw.text),
            _ => {}
        }
    }

    fn add_alternative(&mut self, tag: &Tag) {
        let alternative = attribute(tag, "alt").map(str::trim);
        if let Some(alternative) = alternative.filter(|alternative| !alternative.is_empty()) {
            // Galleries and icons say the same again and again.
            let is_remembered =
                alternative.len() <= MAX_REMEMBERED_BYTES && self.pictures.len() < MAX_REMEMBERED;
            if self.pictures.contains(alternative)
                || (is_remembered && !self.pictures.insert(alternative.to_owned()))
            {
                return;
            }
            self.count_linked(alternative);
            self.apart.picture_letters += weight(alternative);
            self.text.push(' ');
            self.text.push_str(alternative);
            self.text.push(' ');
        }
    }

    fn open_block(&mut self, tag: &Tag) {
        let name: &str = &tag.name;
        self.flush();
        match name {
            "table" => {
                self.turn_into_layout();
                let is_layout = matches!(attribute(tag, "role"), Some("presentation" | "none"));
                self.tables.push(Table::new(is_layout));
            }
            "tr" => {
                if let Some(table) = self.tables.last_mut() {
                    table.open_row();
                }
            }
            "td" | "th" => {
                let span = |name: &str| attribute(tag, name)?.trim().parse::<u16>().ok();
                let (rows, columns) = (span("rowspan").unwrap_or(1), span("colspan").unwrap_or(1));
                if let Some(table) = self.tables.last_mut() {
                    table.open_cell(name == "th", u32::from(rows), usize::from(columns));
                }
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.turn_into_layout(),
            _ => {}
        }
        if self.open.len() < self.max_depth {
            let element = self.page.open(&tag.name, self.element(), Marks::of(tag));
            self.open.push(Open {
                name: tag.name.clone(),
                role: role_of(name).unwrap_or(PLAIN),
                element,
            });
        } else {
            self.overflow += 1;
        }
    }

    /// A cell with a table or a heading in it holds a part of the page, not a value.
    fn turn_into_layout(&mut self) {
        if let Some(table) = self.tables.last_mut().filter(|table| table.is_in_cell()) {
            let cells = table.become_layout();
            let element = self.element();
            for cell in cells {
                let apart = std::mem::take(&mut self.apart);
                self.page.add(BlockKind::Paragraph, &cell, element, apart);
            }
        }
    }

    /// Closes elements whose end tag may be left out before `name`.
    fn close_implied(&mut self, name: &str) {
        let Some(role) = role_of(name) else { return };
        let (closed, within) = match role {
            ITEM => (ITEM, LIST),
            TERM => (TERM, TERM_LIST),
            CELL => (CELL, ROW | TABLE),
            ROW => (CELL | ROW, TABLE),
            ROW_GROUP => (CELL | ROW | ROW_GROUP | CAPTION, TABLE),
            _ => (PARAGRAPH, SCOPE),
        };
        let reach = self
            .open
            .iter()
            .rposition(|open| open.role & within != 0)
            .map_or(0, |at| at + 1);
        if let Some(found) = self.open[reach..].iter().position(|open| open.role & closed != 0) {
            self.close_down_to(reach + found);
        }
    }

    fn close_up_to(&mut self, name: &LocalName) {
        // A stray end tag inside a cell must not close what is around the table.
        let crosses_cells =
            role_of(name).is_some_and(|role| role & (TABLE | ROW | CELL | ROW_GROUP | PAGE) != 0);
        let reach = match crosses_cells {
            true => 0,
            false => self
                .open
                .iter()
                .rposition(|open| open.role == CELL)
                .map_or(0, |at| at + 1),
        };
        if let Some(found) = self.open[reach..].iter().rposition(|open| open.name == *name) {
            self.close_down_to(reach + found);
        } else {
            self.flush();
        }
    }

    /// Closes open elements from the innermost, the one at `depth` last.
    fn close_down_to(&mut self, depth: usize) {
        while self.open.len() > depth {
            self.flush();
            let element = self.element();
            let Some(open) = self.open.pop() else { break };
            // A link that nobody closed ends with the block that it stands in.
            if self
                .link
                .as_ref()
                .is_some_and(|link| link.around > self.open.len())
            {
                self.link = None;
            }
            match &*open.name {
                "td" | "th" => {
                    if let Some(table) = self.tables.last_mut() {
                        table.close_cell();
                    }
                }
                "tr" => self.close_row(element),
                "table" => {
                    self.close_row(element);
                    self.tables.pop();
                }
                _ => {}
            }
        }
    }

    fn close_row(&mut self, element: ElementId) {
        if let Some(row) = self.tables.last_mut().and_then(Table::close_row) {
            let apart = std::mem::take(&mut self.apart);
            let kind = BlockKind::TableRow { header: row.header };
            self.page.add(kind, &row.text, element, apart);
        }
    }

    /// Writes the collected text as what the open elements make of it.
    fn flush(&mut self) {
        if self.text.trim().is_empty() {
            self.text.clear();
            return;
        }
        let text = std::mem::take(&mut self.text);
        if let Some(table) = self.tables.last_mut().filter(|table| table.is_in_cell()) {
            table.add(&text);
            return;
        }
        let apart = std::mem::take(&mut self.apart);
        self.page.add(self.kind(), &text, self.element(), apart);
    }

    /// The innermost open element.
    fn element(&self) -> ElementId {
        self.open.last().map_or(0, |open| open.element)
    }

    fn kind(&self) -> BlockKind {
        for open in self.open.iter().rev() {
            match &*open.name {
                "pre" => return BlockKind::Code,
                "li" | "dd" => return BlockKind::ListItem,
                "td" | "th" | "body" => break,
                name => {
                    if let Some(level) = heading_level(name) {
                        return BlockKind::Heading { level };
                    }
                }
            }
        }
        BlockKind::Paragraph
    }

    fn is_open(&self, name: &str) -> bool {
        self.open.last().is_some_and(|open| &*open.name == name)
    }

    fn finish(&mut self) {
        if let Some(raw) = self.raw.take() {
            self.finish_raw(raw);
        }
        self.close_down_to(0);
        self.flush();
    }
}
