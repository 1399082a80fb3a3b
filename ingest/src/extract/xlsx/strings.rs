//! The strings that cells share.

use crate::ExtractError;
use crate::extract::package::Package;
use crate::extract::xml::XmlEvent;

/// All strings one after the other, since a workbook may have millions of short ones.
#[derive(Debug, Default)]
pub(super) struct SharedStrings {
    text: String,
    ends: Vec<u32>,
}

impl SharedStrings {
    pub(super) fn read(package: &mut Package<'_>, part: &str) -> Result<Self, ExtractError> {
        let mut strings = Self::default();
        let Some(mut reader) = package.xml(part)? else {
            return Ok(strings);
        };
        let mut in_text = false;
        while let Some(event) = reader.next()? {
            match event {
                // How a word is pronounced stands beside it.
                XmlEvent::Start(element) if element.name() == "rPh" => reader.skip_element()?,
                XmlEvent::Start(element) => in_text = element.name() == "t",
                XmlEvent::Text(text) if in_text => strings.text.push_str(&text),
                XmlEvent::Text(_) => {}
                XmlEvent::End(name) => {
                    in_text = false;
                    if name == "si" {
                        strings.end_one()?;
                    }
                }
            }
        }
        Ok(strings)
    }

    pub(super) fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = match index.checked_sub(1) {
            Some(before) => self.ends[before] as usize,
            None => 0,
        };
        self.text.get(start..end)
    }

    fn end_one(&mut self) -> Result<(), ExtractError> {
        let end = u32::try_from(self.text.len()).map_err(|_| ExtractError::too_large("too much text"))?;
        self.ends.push(end);
        Ok(())
    }
}
