//! Text in lines of 100 columns, for the first screen: words stay whole, Chinese characters take two columns.

/// Columns of a line.
pub const COLUMNS: usize = 100;

/// Columns that a character takes.
pub fn width(c: char) -> usize {
    if c.is_ascii() { 1 } else { 2 }
}

fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// Writes a text after `first`, its further lines indented by `hang`. A word longer than a line keeps a line of its own.
pub fn paragraph(out: &mut String, first: &str, hang: usize, text: &str) {
    out.push_str(first);
    let mut used = columns(first);
    let mut fresh = true;
    for word in words(text) {
        let gap = usize::from(!fresh && word.spaced);
        if !fresh && used + gap + columns(word.text) > COLUMNS {
            out.push('\n');
            out.push_str(&" ".repeat(hang));
            used = hang;
        } else if gap > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word.text);
        used += columns(word.text);
        fresh = false;
    }
    out.push('\n');
}

struct Word<'a> {
    text: &'a str,
    /// A space stands before it.
    spaced: bool,
}

/// Words between spaces; a line may break before each Chinese character too.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut out = Vec::new();
    for token in text.split(' ').filter(|t| !t.is_empty()) {
        let mut start = 0;
        for (at, c) in token.char_indices().skip(1) {
            // Punctuation stays with what it follows.
            if width(c) == 2 && c.is_alphanumeric() {
                out.push(Word { text: &token[start..at], spaced: start == 0 });
                start = at;
            }
        }
        out.push(Word { text: &token[start..], spaced: start == 0 });
    }
    out
}

/// A line cut to a number of columns, with a mark where it was cut.
pub fn cut(line: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for c in line.chars() {
        if used + width(c) > columns - 3 && self::columns(line) > columns {
            return out + "...";
        }
        used += width(c);
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_breaks_between_words_and_hangs() {
        let mut out = String::new();
        paragraph(&mut out, "  - ", 4, &"four ".repeat(40));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("  - four") && lines[1].starts_with("    four"));
        assert!(lines.iter().all(|l| columns(l) <= COLUMNS && !l.ends_with(' ')), "{lines:?}");
    }

    #[test]
    fn chinese_breaks_anywhere_and_takes_two_columns() {
        let mut out = String::new();
        paragraph(&mut out, "", 2, &"存".repeat(120));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!((lines.len(), columns(lines[0])), (3, 100));
        assert_eq!(out.matches('存').count(), 120);
    }

    #[test]
    fn a_long_word_stays_whole_and_a_long_line_is_cut_with_a_mark() {
        let mut out = String::new();
        let path = "a/".repeat(80);
        paragraph(&mut out, "", 2, &format!("see {path} there"));
        assert_eq!(out.lines().nth(1), Some(format!("  {path}").as_str()));
        assert_eq!(cut(&"x".repeat(101), 100), format!("{}...", "x".repeat(97)));
        assert_eq!(cut(&"x".repeat(100), 100), "x".repeat(100));
    }
}
