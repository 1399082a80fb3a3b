//! Runs the content streams of a page and notes every visible character with its place.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use lopdf::{DecompressError, Dictionary, Document, Error, Object, ObjectId, Stream};

use super::font::{Font, array_in, dict_in, number_of, resolve};
use super::lexer::{Lexer, Token};
use super::text_state::{Glyph, IDENTITY, Machine, Matrix, concat};
use crate::ExtractError;

/// Forms inside forms, and forms drawn on one page: they may multiply.
const MAX_FORM_DEPTH: usize = 16;
const MAX_FORMS_PER_PAGE: usize = 2_000;

/// Characters on one page; a page of solid six-point text has forty thousand.
const MAX_GLYPHS_PER_PAGE: usize = 500_000;

/// Operands kept for one operator.
const MAX_OPERANDS: usize = 10_000;

/// Ancestors of a page.
const MAX_PAGE_TREE_DEPTH: usize = 64;

/// The text rendering mode that draws nothing, as under the image of a scanned page.
const INVISIBLE_MODE: i32 = 3;

/// What a page shows.
#[derive(Debug, Default)]
pub(super) struct PageContent {
    pub(super) glyphs: Vec<Glyph>,
    pub(super) has_image: bool,
}

/// Reads pages of one document, within one allowance for unpacked data.
pub(super) struct PageReader<'a> {
    document: &'a Document,
    fonts: HashMap<ObjectId, Rc<Font>>,
    /// Forms that showed no text when they were drawn.
    silent_forms: HashSet<ObjectId>,
    unpacked_left: usize,
}

impl<'a> PageReader<'a> {
    pub(super) fn new(document: &'a Document, max_unpacked: u64) -> Self {
        Self {
            document,
            fonts: HashMap::new(),
            silent_forms: HashSet::new(),
            unpacked_left: usize::try_from(max_unpacked).unwrap_or(usize::MAX),
        }
    }

    /// What the page shows. Invisible text counts only where it lies over a scanned image.
    pub(super) fn read(&mut self, page: ObjectId) -> Result<PageContent, ExtractError> {
        let Ok(dict) = self.document.get_dictionary(page) else {
            return Ok(PageContent::default());
        };
        let resources = self
            .inherited(dict, b"Resources")
            .and_then(|found| found.as_dict().ok());
        let page_box = self.page_box(dict);
        let mut content = Vec::new();
        for stream in self.document.get_page_contents(page) {
            if let Ok(stream) = self.document.get_object(stream).and_then(Object::as_stream) {
                content.extend(self.unpack(stream)?);
                content.push(b'\n');
            }
        }
        let mut run = Run {
            reader: self,
            page_box,
            visible: Vec::new(),
            invisible: Vec::new(),
            seen: HashSet::new(),
            has_image: false,
            forms_drawn: 0,
        };
        run.execute(&content, resources, IDENTITY, 0)?;
        let glyphs = if run.visible.is_empty() && run.has_image {
            run.invisible
        } else {
            run.visible
        };
        Ok(PageContent {
            glyphs,
            has_image: run.has_image,
        })
    }

    fn unpack(&mut self, stream: &Stream) -> Result<Vec<u8>, ExtractError> {
        match stream.get_plain_content_with_limit(self.unpacked_left) {
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
            if let Some(found) = node
                .get(key)
                .ok()
                .and_then(|object| resolve(self.document, object))
            {
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

    fn font(&mut self, resources: Option<&'a Dictionary>, name: &[u8]) -> Option<Rc<Font>> {
        let entry = dict_in(self.document, resources?, b"Font")?.get(name).ok()?;
        let Object::Reference(id) = entry else {
            return Some(Rc::new(Font::load(self.document, entry.as_dict().ok()?)));
        };
        if let Some(font) = self.fonts.get(id) {
            return Some(Rc::clone(font));
        }
        let font = Rc::new(Font::load(self.document, self.document.get_dictionary(*id).ok()?));
        self.fonts.insert(*id, Rc::clone(&font));
        Some(font)
    }
}

#[derive(Debug, Clone)]
enum Operand {
    Number(f32),
    Name(Vec<u8>),
    Text(Vec<u8>),
    Array(Vec<Operand>),
}

/// One page while it is drawn.
struct Run<'r, 'a> {
    reader: &'r mut PageReader<'a>,
    page_box: Option<[f32; 4]>,
    visible: Vec<Glyph>,
    invisible: Vec<Glyph>,
    /// Characters by place: some programs draw bold text twice.
    seen: HashSet<(i32, i32, String)>,
    has_image: bool,
    forms_drawn: usize,
}

impl<'a> Run<'_, 'a> {
    fn execute(
        &mut self,
        content: &[u8],
        resources: Option<&'a Dictionary>,
        matrix: Matrix,
        depth: usize,
    ) -> Result<(), ExtractError> {
        let mut machine = Machine::new(matrix);
        let mut operands: Vec<Operand> = Vec::new();
        let mut array: Option<Vec<Operand>> = None;
        let mut lexer = Lexer::new(content);
        while let Some(token) = lexer.next() {
            let operand = match token {
                Token::Number(number) => Operand::Number(number),
                Token::Name(name) => Operand::Name(name),
                Token::Text(text) => Operand::Text(text),
                Token::ArrayStart => {
                    array = Some(Vec::new());
                    continue;
                }
                Token::ArrayEnd => match array.take() {
                    Some(entries) => Operand::Array(entries),
                    None => continue,
                },
                Token::DictStart | Token::DictEnd => continue,
                Token::Operator(operator) => {
                    if operator == b"ID" {
                        lexer.skip_inline_image();
                        self.has_image = true;
                    } else if operator == b"Do" {
                        if let Some(Operand::Name(name)) = operands.last() {
                            self.draw(name, resources, machine.state.matrix, depth)?;
                        }
                    } else {
                        self.apply(&mut machine, &operator, &operands, resources)?;
                    }
                    operands.clear();
                    array = None;
                    continue;
                }
            };
            let list = array.as_mut().unwrap_or(&mut operands);
            if list.len() < MAX_OPERANDS {
                list.push(operand);
            }
        }
        Ok(())
    }

    /// Draws a form, or notes an image.
    fn draw(
        &mut self,
        name: &[u8],
        resources: Option<&'a Dictionary>,
        matrix: Matrix,
        depth: usize,
    ) -> Result<(), ExtractError> {
        let document = self.reader.document;
        let entry = resources
            .and_then(|resources| dict_in(document, resources, b"XObject"))
            .and_then(|objects| objects.get(name).ok());
        let Some(entry) = entry else { return Ok(()) };
        let id = entry.as_reference().ok();
        let Some(stream) = resolve(document, entry).and_then(|object| object.as_stream().ok()) else {
            return Ok(());
        };
        if stream
            .dict
            .get(b"Subtype")
            .and_then(Object::as_name)
            .is_ok_and(|kind| kind == b"Image")
        {
            self.has_image = true;
            return Ok(());
        }
        self.forms_drawn += 1;
        let is_silent = id.is_some_and(|id| self.reader.silent_forms.contains(&id));
        if is_silent || depth >= MAX_FORM_DEPTH || self.forms_drawn > MAX_FORMS_PER_PAGE {
            return Ok(());
        }
        let own = array_in(document, &stream.dict, b"Matrix").and_then(|entries| {
            let numbers: Vec<f32> = entries
                .iter()
                .filter_map(|entry| number_of(document, entry))
                .collect();
            Matrix::try_from(numbers).ok()
        });
        let form_resources = dict_in(document, &stream.dict, b"Resources").or(resources);
        let before = (self.visible.len(), self.invisible.len(), self.has_image);
        let content = self.reader.unpack(stream)?;
        self.execute(
            &content,
            form_resources,
            concat(own.unwrap_or(IDENTITY), matrix),
            depth + 1,
        )?;
        if before == (self.visible.len(), self.invisible.len(), self.has_image) {
            self.reader.silent_forms.extend(id);
        }
        Ok(())
    }

    fn apply(
        &mut self,
        machine: &mut Machine,
        operator: &[u8],
        operands: &[Operand],
        resources: Option<&'a Dictionary>,
    ) -> Result<(), ExtractError> {
        let number = |index: usize| match operands.get(index) {
            Some(Operand::Number(number)) if number.is_finite() => *number,
            _ => 0.0,
        };
        match operator {
            b"Tf" => {
                if let Some(Operand::Name(name)) = operands.first() {
                    machine.state.font = self.reader.font(resources, name);
                }
                machine.state.size = number(1);
            }
            b"Tj" => self.show_operand(machine, operands.first())?,
            b"'" => {
                machine.next_line();
                self.show_operand(machine, operands.first())?;
            }
            b"\"" => {
                machine.state.word_space = number(0);
                machine.state.char_space = number(1);
                machine.next_line();
                self.show_operand(machine, operands.get(2))?;
            }
            b"TJ" => {
                let Some(Operand::Array(parts)) = operands.first() else {
                    return Ok(());
                };
                for part in parts {
                    match part {
                        Operand::Number(back) => machine.advance(-back / 1_000.0 * machine.state.size),
                        part => self.show_operand(machine, Some(part))?,
                    }
                }
            }
            _ => machine.apply(operator, number),
        }
        Ok(())
    }

    fn show_operand(&mut self, machine: &mut Machine, operand: Option<&Operand>) -> Result<(), ExtractError> {
        let Some(Operand::Text(bytes)) = operand else {
            return Ok(());
        };
        let Some(font) = machine.state.font.clone() else {
            return Ok(());
        };
        let is_invisible = machine.state.mode == INVISIBLE_MODE;
        for char in font.decode(bytes) {
            if let Some((glyph, x, y)) = machine.show(char, &font) {
                self.note(glyph, is_invisible, x, y);
            }
        }
        if self.visible.len() + self.invisible.len() > MAX_GLYPHS_PER_PAGE {
            return Err(ExtractError::too_large("a page with too much text"));
        }
        Ok(())
    }

    fn note(&mut self, glyph: Glyph, is_invisible: bool, x: f32, y: f32) {
        if let Some([left, bottom, right, top]) = self.page_box
            && !(x >= left - glyph.size && x <= right && y >= bottom - glyph.size && y <= top)
        {
            return;
        }
        // Half a point is less than any two characters lie apart.
        let key = ((x * 2.0) as i32, (y * 2.0) as i32, glyph.text.clone());
        if !glyph.text.trim().is_empty() && !self.seen.insert(key) {
            return;
        }
        if is_invisible {
            self.invisible.push(glyph)
        } else {
            self.visible.push(glyph)
        }
    }
}
