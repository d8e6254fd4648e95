//! The report as a PDF of plain pages, written by hand: text in a standard font needs no library.
//!
//! Promise: deterministic bytes, valid cross-reference table, at most [`MAX_PAGES`] pages. Chinese text uses the reader's own
//! font (`STSong-Light` with `UniGB-UCS2-H`), which every common viewer has; nothing is embedded. Source: ISO 32000-1.

use std::fmt::Write as _;

use super::wrap::{COLUMNS, width};
use super::{Lang, terminal};
use crate::model::Report;

/// Pages at most; the rest is in the HTML and JSON.
const MAX_PAGES: usize = 200;
const LINES_PER_PAGE: usize = 62;

/// Renders the terminal report as pages.
pub fn render(report: &Report, lang: Lang) -> Vec<u8> {
    let text = terminal::render(report, lang, true);
    let lines: Vec<String> = text.lines().flat_map(wrap).collect();
    let pages: Vec<&[String]> = lines.chunks(LINES_PER_PAGE).take(MAX_PAGES).collect();
    let mut out = Writer::default();
    // Objects: 1 catalog, 2 pages, 3 latin font, 4 chinese font, 5 its descendant, 6 its descriptor, then two per page.
    let first_page = 7;
    let kids: Vec<String> = (0..pages.len()).map(|i| format!("{} 0 R", first_page + 2 * i)).collect();
    out.object("<< /Type /Catalog /Pages 2 0 R >>");
    out.object(&format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), pages.len()));
    out.object("<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>");
    out.object("<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H /DescendantFonts [5 0 R] >>");
    out.object("<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light /CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 4 >> /FontDescriptor 6 0 R /DW 1000 >>");
    out.object("<< /Type /FontDescriptor /FontName /STSong-Light /Flags 6 /FontBBox [-25 -254 1000 880] /ItalicAngle 0 /Ascent 880 /Descent -120 /CapHeight 880 /StemV 93 >>");
    for (index, page) in pages.iter().enumerate() {
        let content = first_page + 2 * index + 1;
        out.object(&format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> /Contents {content} 0 R >>"
        ));
        let stream = page_stream(page);
        out.object(&format!("<< /Length {} >>\nstream\n{stream}\nendstream", stream.len()));
    }
    out.finish()
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    offsets: Vec<usize>,
}

impl Writer {
    fn object(&mut self, body: &str) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(b"%PDF-1.4\n");
        }
        self.offsets.push(self.bytes.len());
        self.bytes.extend_from_slice(format!("{} 0 obj\n{body}\nendobj\n", self.offsets.len()).as_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        let table = self.bytes.len();
        let count = self.offsets.len() + 1;
        let mut tail = format!("xref\n0 {count}\n0000000000 65535 f \n");
        for offset in &self.offsets {
            let _ = writeln!(tail, "{offset:010} 00000 n ");
        }
        let _ = write!(tail, "trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n");
        self.bytes.extend_from_slice(tail.as_bytes());
        self.bytes
    }
}

fn wrap(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut used = 0;
    for c in line.chars() {
        if used + width(c) > COLUMNS {
            out.push("    ".to_owned());
            used = 4;
        }
        used += width(c);
        if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out
}

/// Text operators of one page: runs of ASCII in Courier, all else in the Chinese font.
fn page_stream(lines: &[String]) -> String {
    let mut out = String::from("BT\n12 TL\n36 806 Td\n");
    for line in lines {
        let mut rest = line.as_str();
        while let Some(first) = rest.chars().next() {
            let ascii = first.is_ascii();
            let end = rest.find(|c: char| c.is_ascii() != ascii).unwrap_or(rest.len());
            let (run, tail) = rest.split_at(end);
            if ascii {
                let escaped = run.replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)");
                let _ = writeln!(out, "/F1 8.5 Tf ({escaped}) Tj");
            } else {
                let hex: String = run.encode_utf16().map(|u| format!("{u:04X}")).collect();
                let _ = writeln!(out, "/F2 8.5 Tf <{hex}> Tj");
            }
            rest = tail;
        }
        out.push_str("T*\n");
    }
    out.push_str("ET");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_chinese_lines_are_wrapped_and_escaped() {
        assert_eq!(wrap(&"x".repeat(150)).len(), 2);
        assert_eq!(wrap(&"存".repeat(60)).len(), 2);
        let stream = page_stream(&["a(b)存".to_owned()]);
        assert!(stream.contains("(a\\(b\\)) Tj") && stream.contains("<5B58> Tj"));
    }

    #[test]
    fn the_table_of_a_file_points_at_its_objects() {
        let mut writer = Writer::default();
        writer.object("<< >>");
        writer.object("<< /A 1 >>");
        let bytes = writer.finish();
        let text = String::from_utf8(bytes).unwrap();
        let at = text.find("2 0 obj").unwrap();
        assert!(text.contains(&format!("{at:010} 00000 n")));
    }
}
