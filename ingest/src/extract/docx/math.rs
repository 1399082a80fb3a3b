//! Equations as LaTeX, which models read and which keeps apart what plain characters run together: the
//! fraction, the exponent, the bounds of a sum.

use std::collections::HashMap;

use crate::extract::xml::{Element, XmlEvent};

/// Characters with a name in LaTeX.
const NAMED: [(char, &str); 66] = [
    ('α', "alpha"),
    ('β', "beta"),
    ('γ', "gamma"),
    ('δ', "delta"),
    ('ε', "epsilon"),
    ('ζ', "zeta"),
    ('η', "eta"),
    ('θ', "theta"),
    ('ι', "iota"),
    ('κ', "kappa"),
    ('λ', "lambda"),
    ('μ', "mu"),
    ('ν', "nu"),
    ('ξ', "xi"),
    ('π', "pi"),
    ('ρ', "rho"),
    ('σ', "sigma"),
    ('τ', "tau"),
    ('υ', "upsilon"),
    ('φ', "phi"),
    ('χ', "chi"),
    ('ψ', "psi"),
    ('ω', "omega"),
    ('Γ', "Gamma"),
    ('Δ', "Delta"),
    ('Θ', "Theta"),
    ('Λ', "Lambda"),
    ('Ξ', "Xi"),
    ('Π', "Pi"),
    ('Σ', "Sigma"),
    ('Φ', "Phi"),
    ('Ψ', "Psi"),
    ('Ω', "Omega"),
    ('∞', "infty"),
    ('×', "times"),
    ('÷', "div"),
    ('±', "pm"),
    ('∓', "mp"),
    ('⋅', "cdot"),
    ('∙', "cdot"),
    ('≤', "leq"),
    ('≥', "geq"),
    ('≠', "neq"),
    ('≈', "approx"),
    ('≡', "equiv"),
    ('→', "rightarrow"),
    ('←', "leftarrow"),
    ('⇒', "Rightarrow"),
    ('⇔', "Leftrightarrow"),
    ('∈', "in"),
    ('∉', "notin"),
    ('⊂', "subset"),
    ('∪', "cup"),
    ('∩', "cap"),
    ('∀', "forall"),
    ('∃', "exists"),
    ('∂', "partial"),
    ('∇', "nabla"),
    ('∑', "sum"),
    ('∏', "prod"),
    ('∫', "int"),
    ('∬', "iint"),
    ('∮', "oint"),
    ('√', "sqrt"),
    ('…', "ldots"),
    ('⋯', "cdots"),
];

/// Accents over an expression.
const ACCENTS: [(char, &str); 7] = [
    ('\u{302}', "hat"),
    ('\u{303}', "tilde"),
    ('\u{304}', "bar"),
    ('\u{305}', "overline"),
    ('\u{307}', "dot"),
    ('\u{308}', "ddot"),
    ('\u{20d7}', "vec"),
];

/// Names of functions, which LaTeX sets upright.
const FUNCTIONS: [&str; 14] = [
    "sin", "cos", "tan", "cot", "log", "ln", "exp", "lim", "max", "min", "arcsin", "arccos", "arctan", "det",
];

/// Builds one equation from the elements inside `oMath`.
#[derive(Debug)]
pub(super) struct Equation {
    open: Vec<Part>,
    in_text: bool,
}

/// An open element: its finished parts by name, and its settings.
#[derive(Debug, Default)]
struct Part {
    name: String,
    parts: Vec<(String, String)>,
    settings: HashMap<String, String>,
}

impl Equation {
    /// An equation whose `oMath` has just begun.
    pub(super) fn begin() -> Self {
        Self {
            open: vec![Part::default()],
            in_text: false,
        }
    }

    /// Takes the next event inside the equation; gives the finished LaTeX at its end.
    pub(super) fn take(&mut self, event: XmlEvent) -> Option<String> {
        match event {
            XmlEvent::Start(element) => self.start(&element),
            XmlEvent::Text(text) if self.in_text => {
                if let Some(part) = self.open.last_mut() {
                    part.parts.push((String::new(), latex_of(&text)));
                }
            }
            XmlEvent::Text(_) => {}
            XmlEvent::End(_) => return self.end(),
        }
        None
    }

    fn start(&mut self, element: &Element) {
        let name = element.name().to_owned();
        self.in_text = name == "t";
        // Settings stand in an element of their own: `nary` > `naryPr` > `chr`.
        if let Some(at) = self
            .open
            .len()
            .checked_sub(2)
            .filter(|_| self.open.last().is_some_and(|part| part.name.ends_with("Pr")))
        {
            self.open[at]
                .settings
                .insert(name.clone(), element.value().unwrap_or_default());
        }
        self.open.push(Part {
            name,
            ..Part::default()
        });
    }

    fn end(&mut self) -> Option<String> {
        self.in_text = false;
        let part = self.open.pop()?;
        let latex = part.latex();
        match self.open.last_mut() {
            Some(parent) => {
                parent.parts.push((part.name, latex));
                None
            }
            None => Some(latex),
        }
    }
}

impl Part {
    fn all(&self) -> String {
        self.parts.iter().map(|(_, latex)| latex.as_str()).collect()
    }

    fn get(&self, name: &str) -> &str {
        self.parts
            .iter()
            .find(|(part, _)| part == name)
            .map_or("", |(_, latex)| latex)
    }

    fn each(&self, name: &str) -> Vec<&str> {
        self.parts
            .iter()
            .filter(|(part, _)| part == name)
            .map(|(_, latex)| latex.as_str())
            .collect()
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    fn latex(&self) -> String {
        let base = self.get("e");
        match self.name.as_str() {
            name if name.ends_with("Pr") => String::new(),
            "f" if self.setting("type") == Some("noBar") => {
                format!("\\binom{{{}}}{{{}}}", self.get("num"), self.get("den"))
            }
            "f" => format!("\\frac{{{}}}{{{}}}", self.get("num"), self.get("den")),
            "sSup" => format!("{}^{{{}}}", grouped(base), self.get("sup")),
            "sSub" => format!("{}_{{{}}}", grouped(base), self.get("sub")),
            "sSubSup" => format!(
                "{}_{{{}}}^{{{}}}",
                grouped(base),
                self.get("sub"),
                self.get("sup")
            ),
            "sPre" => format!("{{}}_{{{}}}^{{{}}}{base}", self.get("sub"), self.get("sup")),
            "limLow" => format!("{base}_{{{}}}", self.get("lim")),
            "limUpp" => format!("{base}^{{{}}}", self.get("lim")),
            "rad" if self.get("deg").is_empty() => format!("\\sqrt{{{base}}}"),
            "rad" => format!("\\sqrt[{}]{{{base}}}", self.get("deg")),
            "nary" => self.large_operator(base),
            "func" => format!("{}({base})", function_name(self.get("fName"))),
            "d" => self.delimited(),
            "acc" => {
                let mark = self
                    .setting("chr")
                    .and_then(|chr| chr.chars().next())
                    .unwrap_or('\u{302}');
                let accent = ACCENTS
                    .iter()
                    .find(|(known, _)| *known == mark)
                    .map_or("hat", |(_, name)| name);
                format!("\\{accent}{{{base}}}")
            }
            "bar" => format!("\\overline{{{base}}}"),
            "eqArr" => self.each("e").join(" \\\\ "),
            "mr" => self.each("e").join(" & "),
            "m" => format!(
                "\\begin{{matrix}}{}\\end{{matrix}}",
                self.each("mr").join(" \\\\ ")
            ),
            _ => self.all(),
        }
    }

    fn large_operator(&self, base: &str) -> String {
        let mut out = latex_of(self.setting("chr").filter(|chr| !chr.is_empty()).unwrap_or("∫"))
            .trim_end()
            .to_owned();
        for (sign, bound) in [("_", self.get("sub")), ("^", self.get("sup"))] {
            if !bound.is_empty() {
                out.push_str(&format!("{sign}{{{bound}}}"));
            }
        }
        format!("{out} {base}")
    }

    fn delimited(&self) -> String {
        let side = |name: &str, usual: &str| match self.setting(name) {
            None => usual.to_owned(),
            Some("") => ".".to_owned(),
            Some(bracket @ ("{" | "}")) => format!("\\{bracket}"),
            Some(bracket) => bracket.to_owned(),
        };
        let separator = self.setting("sepChr").unwrap_or("|");
        format!(
            "\\left{}{}\\right{}",
            side("begChr", "("),
            self.each("e").join(separator),
            side("endChr", ")")
        )
    }
}

/// A base of several signs, in braces.
fn grouped(base: &str) -> String {
    if base.chars().count() > 1 {
        format!("{{{base}}}")
    } else {
        base.to_owned()
    }
}

fn function_name(name: &str) -> String {
    let plain = name.trim();
    let stem = plain.split(['_', '^']).next().unwrap_or(plain);
    if FUNCTIONS.contains(&stem.trim_matches(['{', '}'])) {
        format!("\\{plain}")
    } else {
        plain.to_owned()
    }
}

/// Text of an equation, with named characters by their names.
fn latex_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match NAMED.iter().find(|(known, _)| *known == c) {
            Some((_, name)) => {
                out.push('\\');
                out.push_str(name);
                out.push(' ');
            }
            None if matches!(c, '{' | '}' | '%' | '#' | '$' | '&' | '_') => {
                out.push('\\');
                out.push(c);
            }
            None => out.push(c),
        }
    }
    out
}
