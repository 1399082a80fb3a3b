//! Runs the content streams of a page and notes every visible character with its place.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use lopdf::{Dictionary, Document, Object, ObjectId, Stream};

use super::lexer::{Lexer, Token};
use super::objects::{dict_in, dict_of, numbers_in, resolve, text_in};
use super::page::PageReader;
use super::text_state::{Glyph, IDENTITY, Machine, Matrix, concat};
use crate::ExtractError;

/// Forms inside forms, and forms drawn on one page: they may multiply.
const MAX_FORM_DEPTH: usize = 16;
const MAX_FORMS_PER_PAGE: usize = 2_000;

/// Characters on one page; a page of solid six-point text has forty thousand.
const MAX_GLYPHS_PER_PAGE: usize = 500_000;

/// Operands kept for one operator.
const MAX_OPERANDS: usize = 10_000;

/// Marked parts inside marked parts.
const MAX_MARKS: usize = 1_000;

/// A text that stands for what is drawn is about as long as that; more per character is no replacement.
const MAX_REPLACEMENT_FACTOR: usize = 20;

/// Images of one page that are remembered; scanners cut a page into a few strips.
const MAX_IMAGES: usize = 32;

/// The text rendering mode that draws nothing, as under the image of a scanned page.
const INVISIBLE_MODE: i32 = 3;

#[derive(Debug, Clone)]
enum Operand<'c> {
    Number(f32),
    Name(std::borrow::Cow<'c, [u8]>),
    Text(std::borrow::Cow<'c, [u8]>),
    Array(Vec<Operand<'c>>),
}

/// A part of the content between a mark and its end.
#[derive(Debug)]
struct Mark {
    /// Characters before it.
    visible: usize,
    invisible: usize,
    /// What the author says it reads.
    replacement: Option<String>,
    /// It belongs to a layer that is switched off.
    is_hidden: bool,
}

/// One page while it is drawn.
pub(super) struct Run<'r, 'a> {
    reader: &'r mut PageReader<'a>,
    page_box: Option<[f32; 4]>,
    pub(super) visible: Vec<Glyph>,
    pub(super) invisible: Vec<Glyph>,
    pub(super) has_image: bool,
    /// Of the page, in square points; images that overlap count twice.
    pub(super) image_area: f32,
    pub(super) images: Vec<(&'a Stream, Matrix)>,
    /// Characters by place: some programs draw bold text twice.
    seen: HashSet<u64, BuildHasherDefault<PlaceHasher>>,
    marks: Vec<Mark>,
    /// Marks open beyond those that are kept.
    further_marks: usize,
    hidden_marks: usize,
    forms_drawn: usize,
}

impl<'r, 'a> Run<'r, 'a> {
    pub(super) fn new(reader: &'r mut PageReader<'a>, page_box: Option<[f32; 4]>) -> Self {
        Self {
            reader,
            page_box,
            visible: Vec::new(),
            invisible: Vec::new(),
            has_image: false,
            image_area: 0.0,
            images: Vec::new(),
            seen: HashSet::default(),
            marks: Vec::new(),
            further_marks: 0,
            hidden_marks: 0,
            forms_drawn: 0,
        }
    }

    pub(super) fn document(&self) -> &'a Document {
        self.reader.document
    }

    pub(super) fn execute(
        &mut self,
        content: &[u8],
        resources: Option<&'a Dictionary>,
        matrix: Matrix,
        depth: usize,
    ) -> Result<(), ExtractError> {
        let marks_before = self.marks.len();
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
                    match operator {
                        b"ID" => {
                            lexer.skip_inline_image();
                            self.note_image(None, machine.state.matrix);
                        }
                        b"Do" => {
                            if let Some(Operand::Name(name)) = operands.last() {
                                self.draw(name, resources, machine.state.matrix, depth)?;
                            }
                        }
                        b"BDC" => self.open_mark(&operands, resources),
                        b"BMC" => self.open_mark(&[], None),
                        b"EMC" if self.marks.len() > marks_before || self.further_marks > 0 => {
                            self.close_mark()
                        }
                        _ => self.apply(&mut machine, operator, &operands, resources)?,
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
        while self.marks.len() > marks_before {
            self.close_mark();
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
        let document = self.document();
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
            .get(b"OC")
            .is_ok_and(|layer| self.reader.is_hidden_layer(layer))
        {
            return Ok(());
        }
        if stream
            .dict
            .get(b"Subtype")
            .and_then(Object::as_name)
            .is_ok_and(|kind| kind == b"Image")
        {
            self.note_image(Some(stream), matrix);
            return Ok(());
        }
        self.draw_form(stream, id, resources, matrix, depth)
    }

    pub(super) fn draw_form(
        &mut self,
        form: &'a Stream,
        id: Option<ObjectId>,
        resources: Option<&'a Dictionary>,
        matrix: Matrix,
        depth: usize,
    ) -> Result<(), ExtractError> {
        let document = self.document();
        self.forms_drawn += 1;
        let is_silent = id.is_some_and(|id| self.reader.silent_forms.contains(&id));
        if is_silent || depth >= MAX_FORM_DEPTH || self.forms_drawn > MAX_FORMS_PER_PAGE {
            return Ok(());
        }
        let own = numbers_in(document, &form.dict, b"Matrix")
            .and_then(|numbers| Matrix::try_from(numbers).ok())
            .unwrap_or(IDENTITY);
        let form_resources = dict_in(document, &form.dict, b"Resources").or(resources);
        let before = (self.visible.len(), self.invisible.len(), self.has_image);
        let content = self.reader.unpack(form)?;
        self.execute(&content, form_resources, concat(own, matrix), depth + 1)?;
        // What a switched-off layer hides here may be seen elsewhere.
        if self.hidden_marks == 0 && before == (self.visible.len(), self.invisible.len(), self.has_image) {
            self.reader.silent_forms.extend(id);
        }
        Ok(())
    }

    fn note_image(&mut self, image: Option<&'a Stream>, matrix: Matrix) {
        if self.hidden_marks > 0 {
            return;
        }
        self.has_image = true;
        let [a, b, c, d, ..] = matrix;
        let area = (a * d - b * c).abs();
        if area.is_finite() {
            self.image_area += area;
            if self.images.len() < MAX_IMAGES {
                self.images.extend(image.map(|image| (image, matrix)));
            }
        }
    }

    fn open_mark(&mut self, operands: &[Operand], resources: Option<&'a Dictionary>) {
        if self.marks.len() >= MAX_MARKS {
            self.further_marks += 1;
            return;
        }
        let document = self.document();
        let mut mark = Mark {
            visible: self.visible.len(),
            invisible: self.invisible.len(),
            replacement: None,
            is_hidden: false,
        };
        match operands {
            [Operand::Name(tag), Operand::Name(list)] => {
                let entry = resources
                    .and_then(|resources| dict_in(document, resources, b"Properties"))
                    .and_then(|lists| lists.get(list).ok());
                if **tag == *b"OC" {
                    mark.is_hidden = entry.is_some_and(|layer| self.reader.is_hidden_layer(layer));
                } else {
                    mark.replacement = entry
                        .and_then(|entry| dict_of(document, entry))
                        .and_then(|list| text_in(document, list, b"ActualText"));
                }
            }
            [Operand::Name(_), list @ ..] => {
                mark.replacement = list.windows(2).find_map(|pair| match pair {
                    [Operand::Name(key), Operand::Text(text)] if **key == *b"ActualText" => {
                        lopdf::decode_text_string(&Object::string_literal(text.to_vec())).ok()
                    }
                    _ => None,
                });
            }
            _ => {}
        }
        self.hidden_marks += usize::from(mark.is_hidden);
        self.marks.push(mark);
    }

    fn close_mark(&mut self) {
        if self.further_marks > 0 {
            self.further_marks -= 1;
            return;
        }
        let Some(mark) = self.marks.pop() else { return };
        self.hidden_marks -= usize::from(mark.is_hidden);
        if let Some(text) = mark.replacement {
            replace(&mut self.visible, mark.visible, &text);
            replace(&mut self.invisible, mark.invisible, &text);
        }
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
        font.decode(bytes, |char| {
            if let Some((glyph, x, y)) = machine.show(char, &font) {
                self.note(glyph, is_invisible, x, y);
            }
        });
        if self.visible.len() + self.invisible.len() > MAX_GLYPHS_PER_PAGE {
            return Err(ExtractError::too_large("a page with too much text"));
        }
        Ok(())
    }

    fn note(&mut self, glyph: Glyph, is_invisible: bool, x: f32, y: f32) {
        if self.hidden_marks > 0 {
            return;
        }
        if let Some([left, bottom, right, top]) = self.page_box
            && !(x >= left - glyph.size && x <= right && y >= bottom - glyph.size && y <= top)
        {
            return;
        }
        if !glyph.text.trim().is_empty() && !self.seen.insert(place_key(&glyph, x, y)) {
            return;
        }
        if is_invisible {
            self.invisible.push(glyph)
        } else {
            self.visible.push(glyph)
        }
    }
}

/// Character and place in one number; half a point is less than any two characters lie apart.
fn place_key(glyph: &Glyph, x: f32, y: f32) -> u64 {
    let first = glyph.text.chars().next().map_or(0, u64::from);
    let (x, y) = (
        (x * 2.0) as i32 as u64 & 0x1f_ffff,
        (y * 2.0) as i32 as u64 & 0x1f_ffff,
    );
    first << 42 | x << 21 | y
}

/// Spreads place keys over the table; who makes them collide spends his own time limit.
#[derive(Debug, Default)]
struct PlaceHasher(u64);

impl Hasher for PlaceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }
}

/// Puts one character with `text` in place of those from `start` on.
fn replace(glyphs: &mut Vec<Glyph>, start: usize, text: &str) {
    let Some(drawn) = glyphs.get(start..).filter(|drawn| !drawn.is_empty()) else {
        return;
    };
    if text.chars().count() > MAX_REPLACEMENT_FACTOR * drawn.len() {
        return;
    }
    // A sign above a letter has no width of its own.
    let width = |glyph: &Glyph| glyph.end - glyph.start;
    let Some(widest) = drawn.iter().max_by(|a, b| width(a).total_cmp(&width(b))) else {
        return;
    };
    let mut whole = widest.clone();
    // Only what stands on one line is one piece; a replaced paragraph keeps the place of one of its lines.
    for glyph in drawn {
        if glyph.direction == whole.direction && (glyph.baseline - whole.baseline).abs() < 0.5 * whole.size {
            (whole.start, whole.end) = (whole.start.min(glyph.start), whole.end.max(glyph.end));
        }
    }
    whole.text = Rc::from(text);
    glyphs.truncate(start);
    if !text.is_empty() {
        glyphs.push(whole);
    }
}
