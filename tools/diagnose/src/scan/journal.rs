//! Entries of a systemd journal, from an export or from JSON (one line each, or pretty), walked like lines.
//!
//! Promise: the same entry gives the same facts in all forms, and the same as the line that syslog writes of it. It stands where
//! its message stands in the file.

use holdfast_evidence::format::{JournalEntry, JournalExport, JournalPart};
use holdfast_evidence::read::Block;

use super::Scanner;
use crate::rules::RuleSet;

/// An export and the entry that is being read.
#[derive(Default)]
pub(super) struct Export {
    reader: JournalExport,
    entry: JournalEntry,
    /// Line and offset of the entry's message.
    place: (u64, u64),
    /// Entries so far: they are what a log has lines.
    entries: u64,
}

/// Longest entry of `journalctl -o json-pretty` that is read; its fields are not that long, but their bytes may stand one a line.
const MAX_PRETTY: usize = 1 << 20;

/// The entry of a pretty journal that is being read.
#[derive(Default)]
pub(super) struct Pretty {
    text: Vec<u8>,
    /// Line and offset of the entry's message.
    place: (u64, u64),
}

impl Scanner<'_> {
    /// Takes a line of a pretty journal: an entry stands from a line `{` to a line `}`.
    pub(super) fn pretty_line(&mut self, mut pretty: Pretty, line: &[u8], place: (u64, u64)) {
        if line == b"{" {
            pretty = Pretty { text: Vec::new(), place };
        }
        if line.starts_with(b"\t\"MESSAGE\"") {
            pretty.place = place;
        }
        if pretty.text.len() + line.len() < MAX_PRETTY {
            pretty.text.extend_from_slice(line);
            pretty.text.push(b'\n');
        }
        if line == b"}"
            && let Some(entry) = JournalEntry::from_json(&pretty.text)
        {
            self.journal_entry(&entry, pretty.place);
        }
        self.pretty = Some(pretty);
    }

    pub(super) fn export_block(&mut self, block: Block<'_>) {
        let Some(mut export) = self.export.take() else { return };
        let Export { reader, entry, place, entries } = &mut export;
        reader.feed(block.bytes, block.offset, block.first_line, |part| match part {
            JournalPart::Field { name, value, line, offset } => {
                entry.set(name, value);
                if name == b"MESSAGE" {
                    *place = (line, offset);
                }
            }
            JournalPart::End => {
                *entries += 1;
                self.journal_entry(&std::mem::take(entry), *place);
            }
        });
        self.report.lines = export.entries;
        self.export = Some(export);
    }

    /// The last entry of a file that ends without an empty line.
    pub(super) fn export_end(&mut self) {
        if let Some(export) = self.export.take()
            && export.entry.record().is_some()
        {
            self.report.lines += 1;
            self.journal_entry(&export.entry, export.place);
        }
    }

    /// Walks an entry that stands at a line and offset.
    pub(super) fn journal_entry(&mut self, entry: &JournalEntry, (number, offset): (u64, u64)) {
        let Some(record) = entry.record() else { return };
        let line = entry.line();
        self.take_record(&record, b"", number, offset);
        let rules = self.rules;
        let (mut hits, mut found) = (Vec::new(), Vec::new());
        rules.candidates(&line, &mut found);
        for candidate in found.iter().filter(|c| !RuleSet::is_repeat(c.literal)) {
            for owner in rules.owners(candidate.literal) {
                if !hits.contains(&usize::from(*owner)) {
                    hits.push(usize::from(*owner));
                }
            }
        }
        let message_from = line.len() - record.message.len().min(line.len());
        self.judge(&line, message_from, number, offset, &hits);
    }
}
