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

/// Shares of the page's prose, in percent, with which an element is content whatever it is called.
const MACHINERY_SHARE: usize = 60;
const BESIDE_SHARE: usize = 35;

/// Share of an element's prose, in percent, with which the choice descends to one inside it.
const DESCENT_SHARE: usize = 75;
/// The same for elements that are named like content.
const NAMED_DESCENT_SHARE: usize = 50;

/// Share of linked letters, in percent, over which a group of pieces is a list of links.
const LINK_LIST_SHARE: usize = 60;

/// For each piece of the page, whether it belongs to the main content. `title` is what the page calls itself.
pub(super) fn choose(page: &Page, title: Option<&str>) -> Vec<bool> {
    let all = Sums::of_page(page, |_| true);
    let total = all[0].prose;
    let out = left_out(page, &all);
    let is_in = |piece: &Piece| !out[piece.element as usize];
    let left = Sums::of_page(page, is_in);
    if total < MIN_PAGE_PROSE || left[0].prose * 4 < total {
        let kept: Vec<bool> = page.pieces.iter().map(is_in).collect();
        return match kept.iter().any(|kept| *kept) {
            true => kept,
            false => vec![true; page.pieces.len()],
        };
    }
    let main = main_element(page, &left, &out);
    let inside = inside(page, main);
    let mut kept: Vec<bool> = page
        .pieces
        .iter()
        .map(|piece| inside[piece.element as usize] && is_in(piece))
        .collect();
    add_opening(page, &mut kept, &out, title);
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
fn left_out(page: &Page, sums: &[Sums]) -> Vec<bool> {
    let mut out = vec![false; page.elements.len()];
    let mut in_article = vec![false; page.elements.len()];
    for (id, element) in page.elements.iter().enumerate().skip(1) {
        let parent = element.parent as usize;
        in_article[id] =
            in_article[parent] || element.marks.has(Marks::ARTICLE) || element.marks.has(Marks::MAIN);
        out[id] = out[parent] || is_beside(element.marks, &element.name, &sums[id], &sums[0], in_article[id]);
    }
    out
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
    if marks.has(Marks::BESIDE) && !is_content && !has_share(BESIDE_SHARE) {
        return true;
    }
    if marks.has(Marks::COMMENTS) && page.prose - sums.prose >= MIN_PROSE_BESIDE_COMMENTS {
        return true;
    }
    if marks.has(Marks::HEADER) && !in_article && sums.main_headings == 0 && !has_share(BESIDE_SHARE) {
        return true;
    }
    if marks.has(Marks::CONTROL) && !has_share(BESIDE_SHARE) {
        return true;
    }
    let is_group = matches!(
        name,
        "ul" | "ol" | "dl" | "div" | "section" | "table" | "td" | "p" | "article" | "center" | "dir"
    );
    is_group && sums.is_link_list() && !has_share(BESIDE_SHARE)
}

/// The innermost element that holds nearly all that is left.
fn main_element(page: &Page, sums: &[Sums], out: &[bool]) -> ElementId {
    let best_child = best_children(page, sums, out);
    let mut main = declared_main(page, sums, out).unwrap_or(0);
    loop {
        let Some(child) = best_child[main as usize] else {
            return main;
        };
        let (inner, outer) = (&sums[child as usize], &sums[main as usize]);
        let marks = page.elements[child as usize].marks;
        let is_named = marks.has(Marks::MAIN) || marks.has(Marks::CONTENT) || marks.has(Marks::ARTICLE);
        let share = if is_named {
            NAMED_DESCENT_SHARE
        } else {
            DESCENT_SHARE
        };
        if inner.prose_pieces < 2 || inner.prose * 100 < outer.prose * share {
            return main;
        }
        main = child;
    }
}

/// The element that says itself that it is the main one, if it is believable.
fn declared_main(page: &Page, sums: &[Sums], out: &[bool]) -> Option<ElementId> {
    let (id, _) = page
        .elements
        .iter()
        .enumerate()
        .filter(|(id, element)| element.marks.has(Marks::MAIN) && !out[*id])
        .max_by_key(|(id, _)| (sums[*id].prose, std::cmp::Reverse(*id)))?;
    (sums[id].prose * 100 >= sums[0].prose * NAMED_DESCENT_SHARE).then_some(id as ElementId)
}

/// For each element, the one with most prose among those directly inside it that can hold an article.
fn best_children(page: &Page, sums: &[Sums], out: &[bool]) -> Vec<Option<ElementId>> {
    let mut best: Vec<Option<ElementId>> = vec![None; page.elements.len()];
    for (id, element) in page.elements.iter().enumerate().skip(1) {
        if out[id] || !can_hold_article(&element.name) {
            continue;
        }
        let held = &mut best[element.parent as usize];
        if held.is_none_or(|held| sums[id].prose > sums[held as usize].prose) {
            *held = Some(id as ElementId);
        }
    }
    best
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

/// For each element, whether it is `main` or inside it.
fn inside(page: &Page, main: ElementId) -> Vec<bool> {
    let mut inside = vec![false; page.elements.len()];
    inside[main as usize] = true;
    for (id, element) in page.elements.iter().enumerate().skip(1) {
        inside[id] |= inside[element.parent as usize];
    }
    inside
}

/// Adds the page's own heading, and the sentences that follow it, where they stand before the content.
fn add_opening(page: &Page, kept: &mut [bool], out: &[bool], title: Option<&str>) {
    let Some(first) = kept.iter().position(|kept| *kept) else {
        return;
    };
    let is_title = |piece: &Piece| {
        let text = normalized(page.text_of(piece));
        matches!(piece.kind, BlockKind::Heading { level: 1 | 2 })
            && !text.is_empty()
            && title.is_some_and(|title| normalized(title).contains(&text))
    };
    let has_own = page.pieces[first..]
        .iter()
        .zip(&kept[first..])
        .any(|(piece, kept)| *kept && piece.kind == BlockKind::Heading { level: 1 });
    if has_own {
        return;
    }
    let Some(heading) = page.pieces[..first].iter().rposition(is_title) else {
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
