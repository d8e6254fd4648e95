//! The report for people: terminal, HTML, PDF.
//!
//! Promise: each is made from [`crate::model::Report`] alone, so they cannot disagree with `--json`.

pub mod chinese;
pub mod first;
pub mod html;
pub mod pdf;
pub mod terminal;
mod wrap;

/// The language of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Simplified Chinese.
    Zh,
}

impl Lang {
    /// Picks one of two texts.
    pub fn pick<'a>(self, en: &'a str, zh: &'a str) -> &'a str {
        match self {
            Lang::En => en,
            Lang::Zh => zh,
        }
    }
}
