//! A page between reading and choosing: its pieces of text in order, and the block elements that hold them.

use std::ops::Range;

use html5ever::LocalName;

use super::landmarks::Marks;
use crate::document::DocumentBuilder;
use crate::{BlockKind, Limits};

/// Block elements that are told apart. Those beyond count as the element around them.
const MAX_ELEMENTS: usize = 200_000;

/// Pieces kept. One more than a document may have blocks, so that too many are reported as such.
const MAX_PIECES: usize = 1_000_001;

/// An index into [`Page::elements`].
pub(super) type ElementId = u32;

/// Every element comes after the one around it; the first one is the page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) elements: Vec<Element>,
    pub(super) pieces: Vec<Piece>,
    text: String,
    max_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Element {
    pub(super) name: LocalName,
    pub(super) parent: ElementId,
    pub(super) marks: Marks,
}

/// What becomes a block of the document.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) kind: BlockKind,
    pub(super) element: ElementId,
    text: Range<usize>,
    /// Weight of its characters but white space; see [`weight`].
    pub(super) letters: usize,
    /// Those of them that lead elsewhere.
    pub(super) link_letters: usize,
    /// Those of them that stand for a picture.
    pub(super) picture_letters: usize,
}

/// What is made of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Text,
    /// It stands above what follows but is no text itself.
    HeadingOnly,
    Nothing,
}

/// Parts of a text that are not quite text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Apart {
    pub(super) link_letters: usize,
    pub(super) picture_letters: usize,
}

impl Page {
    pub(super) fn new(limits: &Limits) -> Self {
        let root = Element {
            name: LocalName::from("html"),
            parent: 0,
            marks: Marks::default(),
        };
        Self {
            elements: vec![root],
            pieces: Vec::new(),
            text: String::new(),
            max_bytes: usize::try_from(limits.max_unpacked_bytes).unwrap_or(usize::MAX),
        }
    }

    /// Adds an element inside `parent`.
    pub(super) fn open(&mut self, name: &LocalName, parent: ElementId, marks: Marks) -> ElementId {
        if self.elements.len() >= MAX_ELEMENTS {
            return parent;
        }
        self.elements.push(Element {
            name: name.clone(),
            parent,
            marks,
        });
        (self.elements.len() - 1) as ElementId
    }

    pub(super) fn add(&mut self, kind: BlockKind, text: &str, element: ElementId, apart: Apart) {
        if self.is_full() {
            return;
        }
        let letters = weight(text);
        if letters == 0 {
            return;
        }
        let start = self.text.len();
        self.text.push_str(text);
        self.pieces.push(Piece {
            kind,
            element,
            text: start..self.text.len(),
            letters,
            link_letters: apart.link_letters.min(letters),
            picture_letters: apart.picture_letters.min(letters),
        });
    }

    /// Whether more was read than a document may hold, so that reading can stop.
    pub(super) fn is_full(&self) -> bool {
        self.pieces.len() >= MAX_PIECES || self.text.len() > self.max_bytes
    }

    pub(super) fn text_of(&self, piece: &Piece) -> &str {
        &self.text[piece.text.clone()]
    }

    /// Writes the pieces, each as `use_of` says of its place.
    pub(super) fn write(self, builder: &mut DocumentBuilder, use_of: impl Fn(usize) -> Use) {
        for (place, piece) in self.pieces.into_iter().enumerate() {
            let text = &self.text[piece.text];
            match (use_of(place), piece.kind) {
                (Use::Text, kind) => builder.push(kind, text, None),
                (Use::HeadingOnly, BlockKind::Heading { level }) => builder.begin_section(level, text),
                _ => {}
            }
        }
    }
}

/// The length of a text for comparing texts: characters but white space. Scripts that write a word in one or
/// two characters count threefold.
pub(super) fn weight(text: &str) -> usize {
    text.chars()
        .map(|c| match c {
            '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{20000}'..='\u{3ffff}' => 3,
            c => usize::from(!c.is_whitespace()),
        })
        .sum()
}
