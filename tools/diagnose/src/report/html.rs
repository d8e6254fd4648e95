//! The report as one HTML file: lanes per host that zoom, the causal graph, every claim one click from its line.
//!
//! Promise: no network, no external file; all text of the bundle is inserted as text and never as markup.

use super::Lang;
use crate::model::Report;

const PAGE: &str = include_str!("page.html");

/// The page with the report inside.
pub fn render(report: &Report, lang: Lang) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(report)?;
    // `</script>` and `<!--` in a log line must not end the data block.
    let safe = json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    let page = PAGE.replace("%LANG%", lang.pick("en", "zh"));
    Ok(page.replacen("%DATA%", &safe, 1))
}

#[cfg(test)]
mod tests {
    use crate::model::{NoticeOut, Report, Summary};

    #[test]
    fn a_log_line_cannot_leave_the_data_block() {
        let hostile = "</script><script>alert(1)</script>";
        let report = Report {
            summary: Summary {
                verdict: "nothing-conclusive",
                headline: hostile.into(),
                headline_zh: String::new(),
                incident_start: None,
                incident_end: None,
                since: None,
                until: None,
                unread: 0,
                files: 0,
                lines: 0,
                bytes: 0,
            },
            hosts: vec![],
            timeline: vec![],
            facts: vec![],
            causes: vec![],
            contradictions: vec![],
            missing_evidence: vec![],
            recommendations: vec![],
            notices: vec![NoticeOut { path: hostile.into(), kind: String::new(), detail: String::new() }],
            new_lines: vec![],
        };
        let page = super::render(&report, super::Lang::En).expect("plain data");
        assert!(!page.contains("alert(1)</script>"));
        assert_eq!(page.matches("</script>").count(), 2);
        let asked = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!asked.contains("http://") && !asked.contains("https://") && !asked.contains("src="));
    }
}
