//! One page of a document: its content, resources, visible box, rotation and annotations.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use lopdf::{DecompressError, Dictionary, Document, Error, Object, ObjectId, Stream};

use super::content::Run;
use super::encoding::Names;
use super::font::Font;
use super::objects::{
    array_in, dict_in, dict_of, integer_in, name_in, number_of, numbers_in, resolve, resolve_in,
};
use super::text_state::{Glyph, IDENTITY, Matrix, concat};
use crate::ExtractError;

/// Ancestors of a page.
const MAX_PAGE_TREE_DEPTH: usize = 64;

/// Annotations of one page that are drawn.
const MAX_ANNOTATIONS: usize = 2_000;

/// Fonts written into the resources themselves, which cannot be told apart by a number.
const MAX_NAMELESS_FONTS: usize = 1_000;

/// A page without text whose images cover this share of it is a scanned page.
const SCANNED_COVERAGE: f32 = 0.3;

/// Flags of annotations that are not shown: hidden, and not shown on a screen.
const ANNOTATION_UNSEEN: i64 = 1 << 1 | 1 << 5;

/// What a page shows.
#[derive(Debug, Default)]
pub(super) struct PageContent<'a> {
    pub(super) glyphs: Vec<Glyph>,
    pub(super) has_image: bool,
    /// Images fill it and it has no text.
    pub(super) is_scanned: bool,
    /// The largest ones, with how they are drawn.
    pub(super) images: Vec<(&'a Stream, Matrix)>,
}

/// Reads pages of one document, within one allowance for unpacked data.
pub(super) struct PageReader<'a> {
    pub(super) document: &'a Document,
    fonts: HashMap<ObjectId, Rc<Font>>,
    nameless_fonts: HashMap<*const Dictionary, Rc<Font>>,
    names: Names,
    /// Forms that showed no text when they were drawn.
    pub(super) silent_forms: HashSet<ObjectId>,
    /// Layers that are switched off when the document opens.
    hidden_layers: HashSet<ObjectId>,
    unpacked_left: usize,
}

impl<'a> PageReader<'a> {
    pub(super) fn new(document: &'a Document, max_unpacked: u64) -> Self {
        Self {
            document,
            fonts: HashMap::new(),
            nameless_fonts: HashMap::new(),
            names: Names::default(),
            silent_forms: HashSet::new(),
            hidden_layers: hidden_layers(document),
            unpacked_left: usize::try_from(max_unpacked).unwrap_or(usize::MAX),
        }
    }

    /// What the page shows. Invisible text counts only where it lies over a scanned image.
    pub(super) fn read(&mut self, page: ObjectId) -> Result<PageContent<'a>, ExtractError> {
        let document = self.document;
        let Ok(dict) = document.get_dictionary(page) else {
            return Ok(PageContent::default());
        };
        let resources = self
            .inherited(dict, b"Resources")
            .and_then(|found| found.as_dict().ok());
        let turned = self.turned(dict);
        let page_box = self.page_box(dict).map(|page_box| drawn_box(page_box, turned));
        let content = self.content_of(dict)?;
        let mut run = Run::new(self, page_box);
        run.execute(&content, resources, turned, 0)?;
        for annotation in array_in(document, dict, b"Annots")
            .into_iter()
            .flatten()
            .take(MAX_ANNOTATIONS)
            .filter_map(|entry| dict_of(document, entry))
        {
            draw_annotation(&mut run, annotation, turned)?;
        }
        let (visible, invisible, image_area) = (run.visible, run.invisible, run.image_area);
        let (has_image, images) = (run.has_image, run.images);
        let glyphs = if has_ink(&visible) || !has_image {
            visible
        } else {
            invisible
        };
        // A4, where the page does not say.
        let area = page_box.map_or(500_000.0, |[left, bottom, right, top]| {
            (right - left) * (top - bottom)
        });
        Ok(PageContent {
            is_scanned: has_image && !has_ink(&glyphs) && image_area >= SCANNED_COVERAGE * area,
            glyphs,
            has_image,
            images,
        })
    }

    /// The content streams of a page as one, as the format wants them read.
    fn content_of(&mut self, page: &'a Dictionary) -> Result<Vec<u8>, ExtractError> {
        let mut content = Vec::new();
        match resolve_in(self.document, page, b"Contents") {
            Some(Object::Stream(stream)) => content = self.unpack(stream)?,
            Some(Object::Array(parts)) => {
                for part in parts {
                    if let Some(Object::Stream(stream)) = resolve(self.document, part) {
                        content.extend(self.unpack(stream)?);
                        content.push(b'\n');
                    }
                }
            }
            _ => {}
        }
        Ok(content)
    }

    pub(super) fn unpack(&mut self, stream: &Stream) -> Result<Vec<u8>, ExtractError> {
        let plain = match resolved_filters(self.document, stream) {
            Some(stream) => stream.get_plain_content_with_limit(self.unpacked_left),
            None => stream.get_plain_content_with_limit(self.unpacked_left),
        };
        match plain {
            Ok(bytes) => {
                self.unpacked_left -= bytes.len().min(self.unpacked_left);
                Ok(bytes)
            }
            Err(Error::Decompress(DecompressError::MemoryLimitExceeded { .. })) => {
                Err(ExtractError::too_large("it unpacks to too much data"))
            }
            // A broken stream costs its part of the page.
            Err(_) => Ok(Vec::new()),
        }
    }

    /// A property that pages take over from the tree above them.
    fn inherited(&self, page: &'a Dictionary, key: &[u8]) -> Option<&'a Object> {
        let mut node = page;
        for _ in 0..MAX_PAGE_TREE_DEPTH {
            if let Some(found) = resolve_in(self.document, node, key) {
                return Some(found);
            }
            node = dict_in(self.document, node, b"Parent")?;
        }
        None
    }

    /// The visible part of the page: left, bottom, right, top.
    fn page_box(&self, page: &'a Dictionary) -> Option<[f32; 4]> {
        let found = self
            .inherited(page, b"CropBox")
            .or_else(|| self.inherited(page, b"MediaBox"))?;
        let numbers: Vec<f32> = found
            .as_array()
            .ok()?
            .iter()
            .filter_map(|entry| number_of(self.document, entry))
            .collect();
        let [x0, y0, x1, y1] = numbers[..] else {
            return None;
        };
        let (width, height) = ((x1 - x0).abs(), (y1 - y0).abs());
        (width > 1.0 && height > 1.0).then(|| [x0.min(x1), y0.min(y1), x0.max(x1), y0.max(y1)])
    }

    /// How the page is turned for viewing, which may be what makes its text upright.
    fn turned(&self, page: &'a Dictionary) -> Matrix {
        let degrees = self
            .inherited(page, b"Rotate")
            .and_then(|degrees| number_of(self.document, degrees))
            .unwrap_or(0.0);
        match (degrees as i32).rem_euclid(360) {
            90 => [0.0, -1.0, 1.0, 0.0, 0.0, 0.0],
            180 => [-1.0, 0.0, 0.0, -1.0, 0.0, 0.0],
            270 => [0.0, 1.0, -1.0, 0.0, 0.0, 0.0],
            _ => IDENTITY,
        }
    }

    pub(super) fn font(&mut self, resources: Option<&'a Dictionary>, name: &[u8]) -> Option<Rc<Font>> {
        let entry = dict_in(self.document, resources?, b"Font")?.get(name).ok()?;
        let Object::Reference(id) = entry else {
            let dict = entry.as_dict().ok()?;
            let place: *const Dictionary = dict;
            if let Some(font) = self.nameless_fonts.get(&place) {
                return Some(Rc::clone(font));
            }
            let font = Rc::new(Font::load(self.document, dict, &mut self.names));
            if self.nameless_fonts.len() < MAX_NAMELESS_FONTS {
                self.nameless_fonts.insert(place, Rc::clone(&font));
            }
            return Some(font);
        };
        if let Some(font) = self.fonts.get(id) {
            return Some(Rc::clone(font));
        }
        let font = Rc::new(Font::load(
            self.document,
            dict_of(self.document, entry)?,
            &mut self.names,
        ));
        self.fonts.insert(*id, Rc::clone(&font));
        Some(font)
    }

    /// Whether this layer, or all layers of this group of them, are switched off.
    pub(super) fn is_hidden_layer(&self, layer: &Object) -> bool {
        if self.hidden_layers.is_empty() {
            return false;
        }
        if layer
            .as_reference()
            .is_ok_and(|id| self.hidden_layers.contains(&id))
        {
            return true;
        }
        let Some(layers) = dict_of(self.document, layer).and_then(|group| group.get(b"OCGs").ok()) else {
            return false;
        };
        let is_hidden = |layer: &Object| {
            layer
                .as_reference()
                .is_ok_and(|id| self.hidden_layers.contains(&id))
        };
        match layers {
            Object::Array(layers) => !layers.is_empty() && layers.iter().all(is_hidden),
            layer => is_hidden(layer),
        }
    }
}

fn has_ink(glyphs: &[Glyph]) -> bool {
    glyphs.iter().any(|glyph| !glyph.text.trim().is_empty())
}

fn hidden_layers(document: &Document) -> HashSet<ObjectId> {
    let off = document
        .catalog()
        .ok()
        .and_then(|catalog| dict_in(document, catalog, b"OCProperties"))
        .and_then(|layers| dict_in(document, layers, b"D"))
        .and_then(|usual| array_in(document, usual, b"OFF"));
    off.into_iter()
        .flatten()
        .filter_map(|layer| layer.as_reference().ok())
        .collect()
}

/// The stream with its filters written out, where they stand behind references that the library does not follow.
pub(super) fn resolved_filters(document: &Document, stream: &Stream) -> Option<Stream> {
    let is_behind = |key: &[u8]| {
        stream.dict.get(key).is_ok_and(|object| match object {
            Object::Reference(_) => true,
            Object::Array(entries) => entries.iter().any(|entry| entry.as_reference().is_ok()),
            _ => false,
        })
    };
    if !is_behind(b"Filter") && !is_behind(b"DecodeParms") {
        return None;
    }
    let mut dict = Dictionary::new();
    for key in ["Filter", "DecodeParms"] {
        let object = match resolve_in(document, &stream.dict, key.as_bytes()) {
            Some(Object::Array(entries)) => Object::Array(
                entries
                    .iter()
                    .filter_map(|entry| resolve(document, entry))
                    .cloned()
                    .collect(),
            ),
            Some(object) => object.clone(),
            None => continue,
        };
        dict.set(key, object);
    }
    Some(Stream::new(dict, stream.content.clone()))
}

/// The box that `matrix` makes of another, upright again.
fn drawn_box([left, bottom, right, top]: [f32; 4], matrix: Matrix) -> [f32; 4] {
    let [a, b, c, d, e, f] = matrix;
    let corners = [(left, bottom), (left, top), (right, bottom), (right, top)]
        .map(|(x, y)| (a * x + c * y + e, b * x + d * y + f));
    let least = |part: fn(&(f32, f32)) -> f32| corners.iter().map(part).fold(f32::MAX, f32::min);
    let most = |part: fn(&(f32, f32)) -> f32| corners.iter().map(part).fold(f32::MIN, f32::max);
    [
        least(|corner| corner.0),
        least(|corner| corner.1),
        most(|corner| corner.0),
        most(|corner| corner.1),
    ]
}

/// Draws what a form field, a typed note or a stamp shows. Pop-up notes are not on the page.
fn draw_annotation<'a>(
    run: &mut Run<'_, 'a>,
    annotation: &'a Dictionary,
    turned: Matrix,
) -> Result<(), ExtractError> {
    let document = run.document();
    let kind = name_in(document, annotation, b"Subtype").unwrap_or_default();
    if !matches!(kind, b"Widget" | b"FreeText" | b"Stamp")
        || integer_in(document, annotation, b"F").unwrap_or(0) & ANNOTATION_UNSEEN != 0
    {
        return Ok(());
    }
    let Some(usual) = dict_in(document, annotation, b"AP").and_then(|looks| looks.get(b"N").ok()) else {
        return Ok(());
    };
    let looks = match resolve(document, usual) {
        // One appearance per state, as of a check box.
        Some(Object::Dictionary(states)) => name_in(document, annotation, b"AS")
            .and_then(|state| states.get(state).ok())
            .and_then(|state| resolve(document, state)),
        looks => looks,
    };
    let (Some(Object::Stream(form)), Some(place), Some(form_box)) = (
        looks,
        numbers_in(document, annotation, b"Rect").and_then(|numbers| <[f32; 4]>::try_from(numbers).ok()),
        looks
            .and_then(|looks| looks.as_stream().ok())
            .and_then(|form| numbers_in(document, &form.dict, b"BBox"))
            .and_then(|numbers| <[f32; 4]>::try_from(numbers).ok()),
    ) else {
        return Ok(());
    };
    let own = numbers_in(document, &form.dict, b"Matrix")
        .and_then(|numbers| Matrix::try_from(numbers).ok())
        .unwrap_or(IDENTITY);
    // The form's box, as its matrix draws it, fills the place of the annotation (ISO 32000-1, 12.5.5).
    let [left, bottom, right, top] = drawn_box(form_box, own);
    let place = drawn_box(place, IDENTITY);
    let scale = |place: f32, form: f32| if form > 0.0 { place / form } else { 1.0 };
    let (sx, sy) = (
        scale(place[2] - place[0], right - left),
        scale(place[3] - place[1], top - bottom),
    );
    let fit = [sx, 0.0, 0.0, sy, place[0] - left * sx, place[1] - bottom * sy];
    run.draw_form(form, None, None, concat(fit, turned), 0)
}
