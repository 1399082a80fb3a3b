//! The state of a content stream that decides where the next character stands.

use std::rc::Rc;

use super::font::{Char, Font};

/// Saved graphics states; the format allows 28.
const MAX_SAVED_STATES: usize = 256;

/// Smaller text than this many points cannot be read by anyone.
const MIN_SIZE: f32 = 1.0;

/// A character on a page. Positions are along and across the direction of writing, in points.
#[derive(Debug, Clone)]
pub(super) struct Glyph {
    pub(super) text: Rc<str>,
    pub(super) start: f32,
    pub(super) end: f32,
    /// Position of the baseline, upwards.
    pub(super) baseline: f32,
    pub(super) size: f32,
    /// Direction of writing in whole degrees.
    pub(super) direction: i16,
    pub(super) is_bold: bool,
    pub(super) is_mono: bool,
}

pub(super) type Matrix = [f32; 6];

pub(super) const IDENTITY: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

/// `first`, then `second`.
pub(super) fn concat(first: Matrix, second: Matrix) -> Matrix {
    let [a, b, c, d, e, f] = first;
    let [g, h, i, j, k, l] = second;
    [
        a * g + b * i,
        a * h + b * j,
        c * g + d * i,
        c * h + d * j,
        e * g + f * i + k,
        e * h + f * j + l,
    ]
}

#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) matrix: Matrix,
    pub(super) font: Option<Rc<Font>>,
    pub(super) size: f32,
    pub(super) char_space: f32,
    pub(super) word_space: f32,
    /// Horizontal scaling as a factor.
    pub(super) stretch: f32,
    pub(super) leading: f32,
    pub(super) rise: f32,
    pub(super) mode: i32,
}

/// The text state of a content stream.
pub(super) struct Machine {
    pub(super) state: State,
    saved: Vec<State>,
    text_matrix: Matrix,
    line_matrix: Matrix,
}

impl Machine {
    /// The state at the start of a stream that is drawn with `matrix`.
    pub(super) fn new(matrix: Matrix) -> Self {
        let state = State {
            matrix,
            font: None,
            size: 1.0,
            char_space: 0.0,
            word_space: 0.0,
            stretch: 1.0,
            leading: 0.0,
            rise: 0.0,
            mode: 0,
        };
        Self {
            state,
            saved: Vec::new(),
            text_matrix: IDENTITY,
            line_matrix: IDENTITY,
        }
    }

    /// Draws a character and moves on: the glyph, if it can be seen, and its origin on the page.
    pub(super) fn show(&mut self, char: Char, font: &Font) -> Option<(Glyph, f32, f32)> {
        let state = &self.state;
        let raised = concat([1.0, 0.0, 0.0, 1.0, 0.0, state.rise], self.text_matrix);
        let place = concat(raised, state.matrix);
        let size = state.size;
        let drawn_width = char.width * size * state.stretch;
        let spacing = state.char_space + if char.is_word_space { state.word_space } else { 0.0 };
        self.advance(char.width * size + spacing);
        let glyph = glyph_at(place, char.text, drawn_width, size, font)?;
        Some((glyph, place[4], place[5]))
    }

    pub(super) fn apply(&mut self, operator: &[u8], number: impl Fn(usize) -> f32) {
        match operator {
            b"q" if self.saved.len() < MAX_SAVED_STATES => self.saved.push(self.state.clone()),
            b"Q" => {
                if let Some(state) = self.saved.pop() {
                    self.state = state;
                }
            }
            b"cm" => self.state.matrix = concat(matrix_of(&number), self.state.matrix),
            b"BT" => {
                self.text_matrix = IDENTITY;
                self.line_matrix = IDENTITY;
            }
            b"Tc" => self.state.char_space = number(0),
            b"Tw" => self.state.word_space = number(0),
            b"Tz" => self.state.stretch = number(0) / 100.0,
            b"TL" => self.state.leading = number(0),
            b"Ts" => self.state.rise = number(0),
            b"Tr" => self.state.mode = number(0) as i32,
            b"Td" => self.move_line(number(0), number(1)),
            b"TD" => {
                self.state.leading = -number(1);
                self.move_line(number(0), number(1));
            }
            b"Tm" => {
                self.text_matrix = matrix_of(&number);
                self.line_matrix = self.text_matrix;
            }
            b"T*" => self.next_line(),
            _ => {}
        }
    }

    fn move_line(&mut self, x: f32, y: f32) {
        self.line_matrix = concat([1.0, 0.0, 0.0, 1.0, x, y], self.line_matrix);
        self.text_matrix = self.line_matrix;
    }

    pub(super) fn next_line(&mut self) {
        self.move_line(0.0, -self.state.leading);
    }

    /// Moves on by `distance` text space units, before horizontal scaling.
    pub(super) fn advance(&mut self, distance: f32) {
        let step = [1.0, 0.0, 0.0, 1.0, distance * self.state.stretch, 0.0];
        self.text_matrix = concat(step, self.text_matrix);
    }
}

/// The glyph drawn with `place`, unless it is too small to be seen.
fn glyph_at(place: Matrix, text: Rc<str>, width: f32, size: f32, font: &Font) -> Option<Glyph> {
    let [a, b, c, d, x, y] = place;
    let along = a.hypot(b);
    let drawn_size = font.looks(size.abs() * c.hypot(d));
    if text.is_empty() || !along.is_finite() || along == 0.0 || !(MIN_SIZE..10_000.0).contains(&drawn_size) {
        return None;
    }
    let sign = if size < 0.0 { -1.0 } else { 1.0 };
    let (dx, dy) = (sign * a / along, sign * b / along);
    let start = x * dx + y * dy;
    Some(Glyph {
        text,
        start,
        end: start + width.abs() * along,
        baseline: y * dx - x * dy,
        size: drawn_size,
        direction: degrees(dx, dy),
        is_bold: font.is_bold,
        is_mono: font.is_mono,
    })
}

/// A direction in whole degrees over -180.
fn degrees(dx: f32, dy: f32) -> i16 {
    if dy == 0.0 && dx > 0.0 {
        return 0;
    }
    match dy.atan2(dx).to_degrees().round() as i16 {
        -180 => 180,
        other => other,
    }
}

fn matrix_of(number: &impl Fn(usize) -> f32) -> Matrix {
    [number(0), number(1), number(2), number(3), number(4), number(5)]
}
