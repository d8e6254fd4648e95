//! The report for people who read Chinese: mechanisms, alternatives and advice, by their English text.
//!
//! Promise: titles have their Chinese beside them in the report already; what stands in no entry of `rules/zh.toml` stays English.

use std::collections::BTreeMap;

use crate::model::Report;
use crate::rules::RuleError;

fn texts() -> Result<BTreeMap<String, String>, RuleError> {
    toml::from_str(include_str!("../../rules/zh.toml"))
        .map_err(|source| RuleError::Syntax { file: "zh.toml", source })
}

/// Puts Chinese in the place of English.
pub fn speak(report: &mut Report) -> Result<(), RuleError> {
    let texts = texts()?;
    let edges = report.causes.iter_mut().flat_map(|c| &mut c.chain);
    let of_edges = edges.flat_map(|e| [&mut e.mechanism, &mut e.alternative]);
    for text in of_edges.chain(report.recommendations.iter_mut().map(|r| &mut r.text)) {
        if let Some(chinese) = texts.get(text.as_str()) {
            text.clone_from(chinese);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::knowledge::Knowledge;

    #[test]
    fn every_mechanism_and_advice_has_its_chinese_and_nothing_else_has() {
        let knowledge = Knowledge::builtin().expect("the knowledge that comes with the program");
        let edges = knowledge.edges.iter().flat_map(|e| [e.mechanism.as_str(), e.alternative.as_str()]);
        let advice = knowledge.causes.iter().flat_map(|c| &c.recommend).map(|r| r.text.as_str());
        let english: BTreeSet<&str> = edges.chain(advice).filter(|t| !t.is_empty()).collect();
        let texts = texts().expect("the translations are TOML");
        let translated: BTreeSet<&str> = texts.keys().map(String::as_str).collect();
        let differ: Vec<_> = english.symmetric_difference(&translated).collect();
        assert!(differ.is_empty(), "{differ:#?}");
        for (english, chinese) in &texts {
            assert!(chinese.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)), "{english}: {chinese}");
        }
    }
}
