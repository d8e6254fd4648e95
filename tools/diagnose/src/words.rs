//! What the report says, in English and in Chinese.
//!
//! Promise: `rules/zh.toml` is the one home of the Chinese, by the English text or template; a text without an entry stays
//! English, and a test finds every text that can be shown and has none. The labels of the report stand in pairs in
//! [`crate::report`].

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::ops::Deref;
use std::sync::LazyLock;

use serde::{Serialize, Serializer};

static CHINESE: LazyLock<BTreeMap<String, String>> =
    LazyLock::new(|| toml::from_str(include_str!("../rules/zh.toml")).unwrap_or_default());

/// The Chinese for an English text or template; without an entry the English.
pub fn chinese(english: &str) -> &str {
    CHINESE.get(english).map_or(english, String::as_str)
}

/// A text in both languages. It reads as English to the program; [`Said::speak`] decides what people see.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// English.
    pub en: String,
    /// Chinese.
    pub zh: String,
    in_chinese: bool,
}

impl Said {
    /// A template, filled in both languages.
    pub fn of(template: &str, fields: &[(&str, &dyn Display)]) -> Said {
        let put = |text: &str| {
            let put_in = |t: String, (name, v): &(&str, &dyn Display)| {
                t.replace(&format!("{{{name}}}"), &v.to_string())
            };
            fields.iter().fold(text.to_owned(), put_in)
        };
        Said::both(put(template), put(chinese(template)))
    }

    /// A text that is put together from others.
    pub fn both(en: String, zh: String) -> Said {
        Said { en, zh, in_chinese: false }
    }

    /// Shows the Chinese from now on.
    pub fn speak(&mut self) {
        self.in_chinese = true;
    }
}

impl Deref for Said {
    type Target = str;

    fn deref(&self) -> &str {
        &self.en
    }
}

impl Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.in_chinese { &self.zh } else { &self.en })
    }
}

impl Serialize for Said {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::computed::known::KNOWN;
    use crate::knowledge::Knowledge;
    use crate::rules::RuleSet;

    /// The templates that the code fills itself: the first text after each `Said::of(`.
    fn in_code(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("the sources are there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                in_code(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("words.rs") {
                let text = std::fs::read_to_string(&path).expect("a source is text");
                for call in text.split("Said::of(").skip(1) {
                    let Some(rest) = call.trim_start().strip_prefix('"') else { continue };
                    let end = rest.find('"').expect("a closed text");
                    found.insert(rest[..end].to_owned());
                }
            }
        }
    }

    #[test]
    fn every_text_that_can_be_shown_has_its_chinese_and_nothing_else_has() {
        let rules = RuleSet::builtin().expect("the rules compile");
        let knowledge = Knowledge::builtin().expect("the knowledge that comes with the program");
        let mut english: BTreeSet<String> = knowledge.shown().map(str::to_owned).collect();
        english.extend(rules.rules.iter().flat_map(|r| [r.title.clone(), r.refuted_by.clone()]));
        english.extend(KNOWN.iter().map(|k| k.refuted_by.to_owned()));
        english.extend(["strong", "likely", "possible"].map(str::to_owned));
        let knows = english.len();
        in_code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut english);
        assert!(english.len() > knows + 20, "the templates in the code were not found");
        let translated: BTreeSet<String> = CHINESE.keys().cloned().collect();
        let differ: Vec<_> = english.symmetric_difference(&translated).collect();
        assert!(differ.is_empty(), "{differ:#?}");
    }

    #[test]
    fn chinese_is_chinese_but_for_commands_and_fills_what_the_english_fills() {
        for (english, chinese) in CHINESE.iter() {
            let has = chinese.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
            let prose =
                [" the ", " of ", " and ", " is ", " that ", " or "].iter().any(|w| english.contains(w));
            assert!(has || english == chinese && !prose, "{english}: {chinese}");
            for field in chinese.split('{').skip(1).filter_map(|p| p.split('}').next()) {
                let code_gives = field == "t" && english.starts_with("OCFS2 reset");
                assert!(code_gives || english.contains(&format!("{{{field}}}")), "{english}: {chinese}");
            }
        }
    }

    #[test]
    fn a_text_reads_as_english_until_it_is_told_to_speak_chinese() {
        let mut said = Said::of("that host's clock: {x}", &[("x", &3)]);
        said.zh = "三".to_owned();
        assert_eq!(said.to_string(), "that host's clock: 3");
        said.speak();
        assert_eq!((said.to_string().as_str(), &*said), ("三", "that host's clock: 3"));
        assert_eq!(serde_json::to_string(&said).expect("a text"), "\"三\"");
    }
}
