//! All literals of all rules found in one pass over a block.
//!
//! Promise: every occurrence, overlapping ones too, in the order of their ends, of two with one end the longer first. A literal has
//! at least [`SHORTEST`] bytes. So each holds two neighbouring grams of four bytes, of which one lies at an even offset of the
//! block wherever the literal stands: only even offsets are looked at, each by itself, which no automaton that goes from byte to
//! byte can do. Of a long literal the two grams are taken that text holds least often.

/// Bytes of the shortest literal that is found: two grams.
pub const SHORTEST: usize = GRAM + STRIDE - 1;
const GRAM: usize = 4;
const STRIDE: usize = 2;
/// Bits of a gram's hash: its table of one bit each stays in the first cache.
const HASH_BITS: u32 = 16;

/// A literal was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Offset of its last byte.
    pub at: usize,
    /// Which literal.
    pub literal: usize,
}

/// A gram of a literal.
struct Entry {
    gram: u32,
    literal: u16,
    /// Where in the literal it begins.
    begins: u16,
}

/// The literals and the tables that find them.
pub struct Literals {
    literals: Vec<Box<[u8]>>,
    /// One bit for each hash that a gram has.
    known: Box<[u64; (1 << HASH_BITS) / 64]>,
    /// The bits that are set before each word of them.
    before: Vec<u16>,
    /// Where the entries of each bit that is set begin, and where the last ones end.
    begins: Vec<u16>,
    /// The grams, sorted by hash.
    entries: Vec<Entry>,
}

fn hash(gram: u32) -> usize {
    (gram.wrapping_mul(0x9e37_79b1) >> (u32::BITS - HASH_BITS)) as usize
}

fn gram(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// How often text holds a byte, roughly.
fn weight(byte: u8) -> u32 {
    match byte {
        b' ' | b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' => 8,
        b'0'..=b'9' => 6,
        b'd' | b'l' | b'c' | b'u' | b'm' | b'p' => 5,
        b'a'..=b'z' | b'.' | b':' | b'[' | b']' => 3,
        _ => 1,
    }
}

impl Literals {
    /// Tables for literals of at least [`SHORTEST`] bytes; a shorter one is never found.
    pub fn new(literals: &[String]) -> Literals {
        let mut known = [0u64; (1 << HASH_BITS) / 64];
        let mut entries = Vec::new();
        for (number, literal) in literals.iter().enumerate() {
            let bytes = literal.as_bytes();
            let windows = bytes.windows(SHORTEST).enumerate();
            let rarest = windows.min_by_key(|(_, window)| window.iter().copied().map(weight).sum::<u32>());
            let Some((from, _)) = rarest else { continue };
            for begins in from..from + STRIDE {
                let gram = gram(&bytes[begins..]);
                known[hash(gram) / 64] |= 1 << (hash(gram) % 64);
                entries.push(Entry { gram, literal: number as u16, begins: begins as u16 });
            }
        }
        entries.sort_by_key(|e| hash(e.gram));
        let before = known.iter().scan(0, |set, word| {
            let before = *set;
            *set += word.count_ones() as u16;
            Some(before)
        });
        let before = before.collect();
        let first = |n: &usize| *n == 0 || hash(entries[n - 1].gram) != hash(entries[*n].gram);
        let begins = (0..entries.len()).filter(first).chain([entries.len()]).map(|n| n as u16).collect();
        let literals = literals.iter().map(|l| l.as_bytes().into()).collect();
        Literals { literals, known: Box::new(known), before, begins, entries }
    }

    /// Puts all that a block holds into `found`.
    pub fn find(&self, block: &[u8], found: &mut Vec<Candidate>) {
        found.clear();
        for (step, pair) in block.windows(GRAM).step_by(STRIDE).enumerate() {
            let gram = gram(pair);
            let hash = hash(gram);
            if (self.known[hash / 64] >> (hash % 64)) & 1 == 1 {
                self.compare(block, step * STRIDE, gram, found);
            }
        }
        found.sort_unstable_by_key(|c| (c.at, std::cmp::Reverse(self.literals[c.literal].len())));
    }

    fn compare(&self, block: &[u8], at: usize, gram: u32, found: &mut Vec<Candidate>) {
        let (word, bit) = (hash(gram) / 64, hash(gram) % 64);
        let below = self.known[word] & ((1 << bit) - 1);
        let number = usize::from(self.before[word]) + below.count_ones() as usize;
        let entries = usize::from(self.begins[number])..usize::from(self.begins[number + 1]);
        for entry in self.entries[entries].iter().filter(|e| e.gram == gram) {
            let literal = &self.literals[usize::from(entry.literal)];
            let Some(start) = at.checked_sub(entry.begins.into()) else { continue };
            if block[start..].starts_with(literal) {
                found.push(Candidate { at: start + literal.len() - 1, literal: entry.literal.into() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(literals: &[&str], text: &[u8]) -> Vec<(usize, usize)> {
        let literals: Vec<String> = literals.iter().map(|l| (*l).to_owned()).collect();
        let mut found = Vec::new();
        Literals::new(&literals).find(text, &mut found);
        found.iter().map(|c| (c.at, c.literal)).collect()
    }

    #[test]
    fn a_literal_is_found_wherever_it_stands_and_once() {
        for literal in ["xmrig", "I/O error", "connection timeout", "aaaaaaaa"] {
            for before in 0..9 {
                let mut text = vec![b'-'; before];
                text.extend_from_slice(literal.as_bytes());
                let last = text.len() - 1;
                assert_eq!(found(&[literal], &text), [(last, 0)], "{literal} at {before}, at the end");
                text.extend_from_slice(b" and more");
                assert_eq!(found(&[literal], &text), [(last, 0)], "{literal} at {before}");
                text.truncate(last);
                assert_eq!(found(&[literal], &text), [], "{literal} at {before}, cut");
            }
        }
    }

    #[test]
    fn overlapping_literals_are_all_found_in_the_order_of_their_ends() {
        let literals = ["was terminated", "terminated", "nated by", "terminat"];
        assert_eq!(found(&literals, b"Peer n2 was terminated by n1"), [(19, 3), (21, 0), (21, 1), (24, 2)]);
        assert_eq!(found(&["aaaaa"], b"aaaaaaa"), [(4, 0), (5, 0), (6, 0)]);
    }

    #[test]
    fn text_shorter_than_a_gram_holds_nothing() {
        for text in [&b""[..], b"x", b"xmr", b"xmri"] {
            assert_eq!(found(&["xmrig"], text), []);
        }
    }
}
