//! Chooses what a page is about and leaves out what stands around it: menus, banners, teasers, comments.
//!
//! Prose is what tells content from the rest: text in sentences, outside links. Names of classes only add
//! suspicion, since any name may stand on the element that holds everything; an element with most of the
//! page's prose is therefore never left out. From the body, the choice descends to the innermost element
//! that still holds nearly all prose. All of it is linear in the number of elements.

use super::landmarks::Marks;
use super::page::{ElementId, Page, Piece};
use crate::BlockKind;

/// Shorter text without the end of a sentence is a label.
const MIN_PROSE_LETTERS: usize = 30;

/// A page with less prose than this is kept but for its machinery.
const MIN_PAGE_PROSE: usize = 250;

/// Prose that has to stand elsewhere before comments are left out.
const MIN_PROSE_BESIDE_COMMENTS: usize = 400;

/// Teasers that make a list, and the prose beside them, in letters and percent, with which they are not the
/// content themselves.
const MIN_TEASERS: usize = 3;
const MIN_PROSE_BESIDE_TEASERS: usize = 400;
const SHARE_BESIDE_TEASERS: usize = 15;

/// Shares of the page's prose, in percent, with which an element is content whatever it is called.
const MACHINERY_SHARE: usize = 60;
const BESIDE_SHARE: usize = 35;

/// Share of an element's prose, in percent, with which the choice descends to one inside it.
const DESCENT_SHARE: usize = 90;
/// The same for elements that are named like content or hold the page's heading.
const NAMED_DESCENT_SHARE: usize = 50;
/// The same for an article that holds the page's heading; with this share, what holds the heading goes before
/// what has more prose.
const HEADED_SHARE: usize = 20;
/// The same where the outer element, or one around it, is named like content already.
const DESCENT_FROM_NAMED_SHARE: usize = 82;

/// Headings and names of pictures are shorter.
const MAX_TITLE_LETTERS: usize = 300;

/// Names of pictures that say something.
const MIN_PICTURE_LETTERS: usize = 12;

/// Share of linked letters, in percent, over which a group of pieces is a list of links.
const LINK_LIST_SHARE: usize = 50;

/// For each piece of the page, whether it belongs to the main content. `title` is what the page calls itself.
pub(super) fn choose(page: &Page, title: Option<&str>) -> Vec<bool> {
    let all = Sums::of_page(page, |_| true);
    let total = all[0].prose;
    let heading = title_heading(page, title);
    let is_around_heading = around(page, heading);
    let out = left_out(page, &all, &is_around_heading);
    let is_in = |piece: &Piece| !out[piece.element as usize];
    let left = Sums::of_page(page, is_in);
    if total < MIN_PAGE_PROSE || left[0].prose * 4 < total {
        let kept: Vec<bool> = page.pieces.iter().map(is_in).collect();
        return match kept.iter().any(|kept| *kept) {
            true => kept,
            false => vec![true; page.pieces.len()],
        };
    }
    let descent = Descent {
        page,
        sums: &left,
        out: &out,
        is_around_heading: &is_around_heading,
    };
    let inside = descent.inside();
    let mut kept: Vec<bool> = page
        .pieces
        .iter()
        .map(|piece| inside[piece.element as usize] && is_in(piece))
        .collect();
    add_opening(page, &mut kept, &out, heading);
    drop_pictures_that_repeat(page, &mut kept, title);
    drop_empty_headings(page, &mut kept);
    kept
}

/// What an element and all inside it hold.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    letters: usize,
    link_letters: usize,
    prose: usize,
    prose_pieces: usize,
    pieces: usize,
    main_headings: usize,
    headings: usize,
    linked_headings: usize,
}

impl Sums {
    fn of_page(page: &Page, counts: impl Fn(&Piece) -> bool) -> Vec<Self> {
        let mut sums = vec![Self::default(); page.elements.len()];
        for piece in page.pieces.iter().filter(|piece| counts(piece)) {
            let prose = prose(page, piece);
            let sum = &mut sums[piece.element as usize];
            sum.letters += piece.letters;
            sum.link_letters += piece.link_letters;
            sum.prose += prose;
            sum.prose_pieces += usize::from(prose > 0);
            sum.pieces += 1;
            let is_heading = matches!(piece.kind, BlockKind::Heading { .. });
            sum.headings += usize::from(is_heading);
            sum.linked_headings += usize::from(is_heading && piece.link_letters * 10 > piece.letters * 9);
            sum.main_headings += usize::from(piece.kind == BlockKind::Heading { level: 1 });
        }
        for id in (1..sums.len()).rev() {
            let sum = sums[id];
            sums[page.elements[id].parent as usize].add(sum);
        }
        sums
    }

    fn add(&mut self, other: Self) {
        self.letters += other.letters;
        self.link_letters += other.link_letters;
        self.prose += other.prose;
        self.prose_pieces += other.prose_pieces;
        self.pieces += other.pieces;
        self.main_headings += other.main_headings;
        self.headings += other.headings;
        self.linked_headings += other.linked_headings;
    }

    /// A heading that leads to another page, with a sentence or two of it.
    fn is_teaser(&self) -> bool {
        self.linked_headings == 1 && self.prose_pieces <= 2 && self.pieces <= 8
    }

    fn is_link_list(&self) -> bool {
        self.link_letters * 100 > self.letters * LINK_LIST_SHARE
    }
}

/// The letters of a piece that read as text.
fn prose(page: &Page, piece: &Piece) -> usize {
    let free = piece.letters - piece.link_letters;
    if piece.link_letters > free {
        return 0;
    }
    match piece.kind {
        BlockKind::Heading { .. } => 0,
        BlockKind::Code => free,
        BlockKind::ListItem | BlockKind::TableRow { .. } if free < MIN_PROSE_LETTERS => free / 2,
        _ if free >= MIN_PROSE_LETTERS || ends_sentence(page.text_of(piece)) => free,
        _ => 0,
    }
}

fn ends_sentence(text: &str) -> bool {
    text.trim_end()
        .ends_with(['.', '!', '?', ':', '…', '。', '！', '？', '؟', '।'])
}

/// For each element, whether it and all inside it is beside the content.
fn left_out(page: &Page, sums: &[Sums], is_around_heading: &[bool]) -> Vec<bool> {
    let teasers = teasers(page, sums);
    let mut out = vec![false; page.elements.len()];
    let mut in_article = vec![false; page.elements.len()];
    let mut is_comment = vec![false; page.elements.len()];
    let mut left_beside_comments = sums[0].prose;
    for (id, element) in page.elements.iter().enumerate().skip(1) {
        let parent = element.parent as usize;
        let marks = element.marks;
        in_article[id] = in_article[parent] || marks.has(Marks::ARTICLE) || marks.has(Marks::MAIN);
        out[id] = out[parent]
            || teasers[id]
            || !is_around_heading[id] && is_beside(marks, &element.name, &sums[id], &sums[0], in_article[id]);
        is_comment[id] = is_comment[parent] || marks.has(Marks::COMMENTS);
        let begins = |flags: &[bool]| flags[id] && !flags[parent];
        if (begins(&out) && !is_comment[parent]) || (begins(&is_comment) && !out[id]) {
            left_beside_comments = left_beside_comments.saturating_sub(sums[id].prose);
        }
    }
    // Where comments are all there is, they are the content.
    if left_beside_comments >= MIN_PROSE_BESIDE_COMMENTS {
        out.iter_mut()
            .zip(&is_comment)
            .for_each(|(out, is_comment)| *out |= is_comment);
    }
    out
}

/// For each element, whether it is one of several teasers side by side on a page that is not made of them.
fn teasers(page: &Page, sums: &[Sums]) -> Vec<bool> {
    let mut siblings = vec![0_usize; page.elements.len()];
    let mut prose_of_teasers = 0;
    let is_teaser = |id: usize| sums[id].is_teaser() && !sums[page.elements[id].parent as usize].is_teaser();
    for (id, element) in page.elements.iter().enumerate().skip(1) {
        if is_teaser(id) {
            siblings[element.parent as usize] += 1;
        }
    }
    let mut teasers = vec![false; page.elements.len()];
    for (id, element) in page.elements.iter().enumerate().skip(1) {
        teasers[id] = is_teaser(id) && siblings[element.parent as usize] >= MIN_TEASERS;
        if teasers[id] {
            prose_of_teasers += sums[id].prose;
        }
    }
    let rest = sums[0].prose - prose_of_teasers;
    if rest < MIN_PROSE_BESIDE_TEASERS || rest * 100 < sums[0].prose * SHARE_BESIDE_TEASERS {
        teasers.fill(false);
    }
    teasers
}

fn is_beside(marks: Marks, name: &str, sums: &Sums, page: &Sums, in_article: bool) -> bool {
    if sums.letters == 0 {
        return false;
    }
    let has_share = |percent: usize| sums.prose * 100 >= page.prose * percent;
    let is_content = marks.has(Marks::CONTENT) || marks.has(Marks::MAIN);
    if marks.has(Marks::MACHINERY) && !is_content && !has_share(MACHINERY_SHARE) {
        return true;
    }
    // Names of prices, hours and places are no prose: where there is little of it, nothing is beside it.
    if page.prose < MIN_PAGE_PROSE {
        return false;
    }
    if marks.has(Marks::BESIDE) && !is_content && !has_share(BESIDE_SHARE) {
        return true;
    }
    if marks.has(Marks::HEADER) && !in_article && sums.main_headings == 0 && !has_share(BESIDE_SHARE) {
        return true;
    }
    // Questions of a list often stand on the buttons that open their answers.
    if name == "button" {
        return sums.prose == 0 && sums.headings == 0;
    }
    if marks.has(Marks::CONTROL) && !has_share(BESIDE_SHARE) {
        return true;
    }
    if name == "p" {
        return sums.link_letters * 10 > sums.letters * 9 && sums.pieces == 1;
    }
    let is_group = matches!(
        name,
        "ul" | "ol" | "dl" | "div" | "section" | "table" | "td" | "article" | "center" | "dir"
    );
    is_group && sums.is_link_list() && !has_share(BESIDE_SHARE)
}

/// The way from the page to the innermost element that holds nearly all that is left.
struct Descent<'a> {
    page: &'a Page,
    sums: &'a [Sums],
    out: &'a [bool],
    /// For each element, whether it holds the heading that the page is named by.
    is_around_heading: &'a [bool],
}

impl<'a> Descent<'a> {
    /// For each element, whether it belongs to the content or is inside one that does.
    fn inside(&self) -> Vec<bool> {
        let best_child = self.best_children();
        let mut main = self.declared().unwrap_or(0);
        let mut inside = vec![false; self.page.elements.len()];
        let mut is_named = self.is_named(main);
        while let Some(child) =
            best_child[main as usize].filter(|child| self.is_worth(main, *child, is_named))
        {
            main = child;
            is_named |= self.is_named(child);
        }
        inside[main as usize] = true;
        for (id, element) in self.page.elements.iter().enumerate().skip(1) {
            inside[id] |= inside[element.parent as usize];
        }
        inside
    }

    fn is_named(&self, id: ElementId) -> bool {
        let marks = self.page.elements[id as usize].marks;
        marks.has(Marks::MAIN) || marks.has(Marks::CONTENT) || marks.has(Marks::ARTICLE)
    }

    /// Whether to go from `outer` to `inner`. `is_named` if `outer` or one around it is named like content.
    fn is_worth(&self, outer: ElementId, inner: ElementId, is_named: bool) -> bool {
        let (outer_sums, inner_sums) = (&self.sums[outer as usize], &self.sums[inner as usize]);
        let has_heading = self.is_around_heading[inner as usize];
        let is_article = self.page.elements[inner as usize].marks.has(Marks::ARTICLE);
        let percent = match (is_named, self.is_named(inner) || has_heading) {
            _ if has_heading && is_article => HEADED_SHARE,
            (true, _) => DESCENT_FROM_NAMED_SHARE,
            (false, true) => NAMED_DESCENT_SHARE,
            (false, false) => DESCENT_SHARE,
        };
        (inner_sums.prose_pieces >= 2 || has_heading) && inner_sums.prose * 100 >= outer_sums.prose * percent
    }

    /// The element that says itself that it is the main one, if it is believable.
    fn declared(&self) -> Option<ElementId> {
        let elements = self.page.elements.iter().enumerate();
        let (id, _) = elements
            .filter(|(id, element)| element.marks.has(Marks::MAIN) && !self.out[*id])
            .max_by_key(|(id, _)| (self.sums[*id].prose, std::cmp::Reverse(*id)))?;
        (self.sums[id].prose * 100 >= self.sums[0].prose * NAMED_DESCENT_SHARE).then_some(id as ElementId)
    }

    /// For each element, the one with most prose among those directly inside it that can hold an article.
    fn best_children(&self) -> Vec<Option<ElementId>> {
        let mut best: Vec<Option<ElementId>> = vec![None; self.page.elements.len()];
        for (id, element) in self.page.elements.iter().enumerate().skip(1) {
            if self.out[id] || !can_hold_article(&element.name) {
                continue;
            }
            let held = &mut best[element.parent as usize];
            let rank = |id: usize| {
                let has_heading = self.is_around_heading[id]
                    && self.sums[id].prose * 100 >= self.sums[element.parent as usize].prose * HEADED_SHARE;
                (has_heading, self.sums[id].prose)
            };
            let is_better = held.is_none_or(|held| rank(id) > rank(held as usize));
            if is_better {
                *held = Some(id as ElementId);
            }
        }
        best
    }
}

fn can_hold_article(name: &str) -> bool {
    matches!(
        name,
        "html"
            | "body"
            | "div"
            | "section"
            | "article"
            | "main"
            | "form"
            | "fieldset"
            | "center"
            | "header"
            | "table"
            | "tbody"
            | "tr"
            | "td"
            | "aside"
    )
}

/// The heading that has the name of the page, by its place among the pieces: the last of those with the longest
/// text.
fn title_heading(page: &Page, title: Option<&str>) -> Option<usize> {
    let title = normalized(title?);
    let mut best: Option<(usize, usize)> = None;
    for (place, piece) in page.pieces.iter().enumerate() {
        if !matches!(piece.kind, BlockKind::Heading { level: 1 | 2 }) || piece.letters > MAX_TITLE_LETTERS {
            continue;
        }
        let text = normalized(page.text_of(piece));
        if !text.is_empty() && title.contains(&text) && best.is_none_or(|(_, length)| text.len() > length) {
            best = Some((place, text.len()));
        }
    }
    best.map(|(place, _)| place)
}

/// For each element, whether it holds the piece at this place.
fn around(page: &Page, place: Option<usize>) -> Vec<bool> {
    let mut around = vec![false; page.elements.len()];
    let mut holder = place.map(|place| page.pieces[place].element);
    while let Some(id) = holder.filter(|id| *id != 0) {
        around[id as usize] = true;
        holder = Some(page.elements[id as usize].parent);
    }
    around
}

/// Adds the page's own heading, and the sentences that follow it, where they stand before the content.
fn add_opening(page: &Page, kept: &mut [bool], out: &[bool], heading: Option<usize>) {
    let Some(first) = kept.iter().position(|kept| *kept) else {
        return;
    };
    let Some(heading) = heading.filter(|heading| *heading < first) else {
        return;
    };
    kept[heading] = true;
    let between = page.pieces[..first].iter().zip(kept).skip(heading + 1);
    for (piece, kept) in between {
        *kept = !out[piece.element as usize]
            && piece.kind == BlockKind::Paragraph
            && piece.letters >= 2 * MIN_PROSE_LETTERS
            && piece.link_letters * 4 < piece.letters
            && ends_sentence(page.text_of(piece));
    }
}

/// Pictures say something where they add to the text: not its title or its caption again, and not an icon's name.
fn drop_pictures_that_repeat(page: &Page, kept: &mut [bool], title: Option<&str>) {
    let title = title.map(normalized).unwrap_or_default();
    for (place, (piece, kept)) in page.pieces.iter().zip(kept).enumerate() {
        if !*kept || piece.picture_letters < piece.letters || piece.letters > MAX_TITLE_LETTERS {
            continue;
        }
        let text = normalized(page.text_of(piece));
        let repeats = |other: Option<&Piece>| {
            other.is_some_and(|other| normalized(page.text_of(other)).contains(&text))
        };
        let is_said = title.contains(&text)
            || repeats(page.pieces.get(place + 1))
            || repeats(place.checked_sub(1).map(|before| &page.pieces[before]));
        *kept = !is_said && piece.letters >= MIN_PICTURE_LETTERS && piece.link_letters == 0;
    }
}

fn normalized(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// A heading whose text was left out goes too.
fn drop_empty_headings(page: &Page, kept: &mut [bool]) {
    let mut level_below: u8 = 0;
    let mut has_dropped = true;
    for place in (0..page.pieces.len()).rev() {
        let piece = &page.pieces[place];
        let BlockKind::Heading { level } = piece.kind else {
            if kept[place] {
                level_below = u8::MAX;
                has_dropped = false;
            } else {
                has_dropped = true;
            }
            continue;
        };
        if !kept[place] {
            continue;
        }
        if level_below <= level && has_dropped && level > 1 {
            kept[place] = false;
        } else {
            level_below = level;
            has_dropped = false;
        }
    }
}
