//! docs/formats.md against the code: a field's offset and size in the document are where the encoded bytes change
//! when the field does.

use holdfast_store::format::journal::{
    BATCH_HEADER_BYTES, BatchHeader, ENTRY_HEADER_BYTES, Entry, MAX_BATCH_BYTES, MAX_ENTRIES_BYTES,
    SegmentState, encode_batch, encode_entry,
};
use holdfast_store::format::page::Page;
use holdfast_store::format::superblock::Superblock;
use holdfast_store::{DiskIdentity, Layout, Place, StoreConfig, layout};
use holdfast_types::{
    BLOCK_BYTES, BlockIndex, BlockRange, ClusterId, DiskId, DiskIncarnation, Epoch, ExtentIndex, GatewayId,
    LogPosition, Lsn, NodeId, PeerPath, ProcessIncarnation, Record, RecordBody, RequestTag, SegmentId,
    SegmentIncarnation, SegmentKey, SessionId, VolumeId, WriteData,
};

/// A field: offset, size, and the first word of its name.
type Field = (usize, usize, String);

fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats.md");
    std::fs::read_to_string(path).expect("docs/formats.md is there")
}

fn section(document: &str, heading: &str) -> String {
    let at = document.find(heading).unwrap_or_else(|| panic!("there is no {heading}"));
    let rest = &document[at + heading.len()..];
    rest[..rest.find("\n#").unwrap_or(rest.len())].to_owned()
}

/// The cells of the n-th table of a section, without its head.
fn table(section: &str, n: usize) -> Vec<Vec<String>> {
    let mut tables: Vec<Vec<Vec<String>>> = Vec::new();
    let mut inside = false;
    for line in section.lines() {
        if !line.starts_with('|') {
            inside = false;
            continue;
        }
        if !inside {
            tables.push(Vec::new());
            inside = true;
        }
        let cells = line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
        tables.last_mut().expect("one was begun").push(cells);
    }
    tables.get(n).unwrap_or_else(|| panic!("table {n} lacks in {section}"))[2..].to_vec()
}

fn fields(section: &str, n: usize) -> Vec<Field> {
    let number = |text: &String| text.parse().unwrap_or_else(|_| panic!("'{text}' is no number"));
    let first_word = |text: &str| text.split([' ', ',', ':']).next().unwrap_or_default().to_owned();
    table(section, n).iter().map(|c| (number(&c[0]), number(&c[1]), first_word(&c[2]))).collect()
}

/// Where two encodings differ, their checksums aside.
fn difference(a: &[u8], b: &[u8], name: &str) -> (usize, usize) {
    assert_eq!(a.len(), b.len(), "{name}");
    let differ: Vec<usize> = (0..a.len()).filter(|i| a[*i] != b[*i] && !(8..12).contains(i)).collect();
    let (first, last) = (*differ.first().expect("the field is encoded"), *differ.last().expect("it is"));
    assert_eq!(differ.len(), last - first + 1, "{name} is in one piece");
    (first, differ.len())
}

/// Every field of `cases` changes every one of its bytes; the document must name them all, in order.
fn compare(documented: &[Field], base: &[u8], cases: Vec<(&str, Vec<u8>)>) {
    let coded: Vec<Field> = cases
        .iter()
        .map(|(name, bytes)| {
            let (at, size) = difference(base, bytes, name);
            (at, size, (*name).to_owned())
        })
        .collect();
    assert_eq!(documented, coded, "left: docs/formats.md, right: the code");
}

const KEY: SegmentKey =
    SegmentKey { segment: SegmentId { volume: VolumeId(0), index: 0 }, incarnation: SegmentIncarnation(0) };

fn superblock() -> Superblock {
    let identity = DiskIdentity {
        cluster: ClusterId(0),
        node: NodeId(0),
        disk: DiskId(0),
        incarnation: DiskIncarnation(0),
        boot_nonce: 0,
    };
    let layout = Layout { size: 0, journal: 0..0, metadata: 0..0, extents: 0..0, grown: Vec::new() };
    let tail = Place { sequence: 0, offset: 0 };
    Superblock { generation: 0, identity, format_nonce: 0, layout, page_limit: 0, tail, has_twins: false }
}

#[test]
fn the_superblock_is_as_drawn() {
    const ALL: u64 = u64::MAX;
    let with = |change: &dyn Fn(&mut Superblock)| {
        let mut s = superblock();
        change(&mut s);
        s.encode()
    };
    let cases = vec![
        ("node", with(&|s| s.identity.node = NodeId(u16::MAX))),
        ("generation", with(&|s| s.generation = ALL)),
        ("cluster", with(&|s| s.identity.cluster = ClusterId(u128::MAX))),
        ("disk", with(&|s| s.identity.disk = DiskId(u128::MAX))),
        ("incarnation", with(&|s| s.identity.incarnation = DiskIncarnation(u32::MAX))),
        ("page", with(&|s| s.page_limit = u32::MAX)),
        ("boot", with(&|s| s.identity.boot_nonce = ALL)),
        ("format", with(&|s| s.format_nonce = ALL)),
        ("size", with(&|s| s.layout.size = ALL)),
        ("journal", with(&|s| s.layout.journal = ALL..ALL)),
        ("pages", with(&|s| s.layout.metadata = ALL..ALL)),
        ("extents", with(&|s| s.layout.extents = ALL..ALL)),
        ("tail", with(&|s| s.tail = Place { sequence: ALL, offset: ALL })),
    ];
    let drawn = fields(&section(&document(), "### Superblock"), 0);
    let base = superblock().encode();
    assert_eq!((&base[..8], base.len()), (&b"HOLDFAST"[..], BLOCK_BYTES));
    compare(&drawn, &base, cases);
}

#[test]
fn every_structure_on_a_disk_begins_as_drawn() {
    let head = fields(&section(&document(), "# Formats"), 0);
    let drawn: Vec<(usize, usize)> = head.iter().map(|(at, size, _)| (*at, *size)).collect();
    assert_eq!(drawn, [(0, 8), (8, 4), (12, 2)]);
    let zero = Place { sequence: 0, offset: 0 };
    let page = Page::empty(KEY, 0, ExtentIndex(0)).encode(0);
    let batch = encode_batch(0, zero, zero, 0, &[], 0, 0);
    for (bytes, version) in [(superblock().encode(), 4), (batch, 3), (page, 2)] {
        assert_eq!(bytes[8..12], holdfast_checksum::crc32c(&bytes[12..]).to_le_bytes());
        assert_eq!(bytes[12..14], [version, 0]);
    }
}

#[test]
fn the_extent_page_is_as_drawn() {
    let empty = || {
        let mut page = Page::empty(KEY, 0, ExtentIndex(0));
        (page.references, page.location) = (0, Some(0));
        page
    };
    /// Without the checksum of the names, which changes with each of them.
    fn encoded(page: &Page, nonce: u64) -> Vec<u8> {
        let mut bytes = page.encode(nonce);
        let sum = holdfast_checksum::crc32c(&bytes[12..76]).to_le_bytes();
        assert_eq!(bytes.splice(76..80, [0; 4]).collect::<Vec<u8>>(), sum);
        bytes
    }
    let with = |change: &dyn Fn(&mut Page)| {
        let mut page = empty();
        change(&mut page);
        encoded(&page, 0)
    };
    let mut summed = encoded(&empty(), 0);
    summed[76..80].fill(0xff);
    let key = SegmentKey {
        segment: SegmentId { volume: VolumeId(u64::MAX), index: u32::MAX },
        incarnation: SegmentIncarnation(u32::MAX),
    };
    let cases = vec![
        ("format", encoded(&empty(), u64::MAX)),
        ("sequence", with(&|p| p.sequence = u64::MAX)),
        ("segment", with(&|p| p.key = key)),
        ("life", with(&|p| p.life = u64::MAX)),
        ("extent", with(&|p| p.extent = ExtentIndex(u32::MAX))),
        ("extent", with(&|p| p.location = None)),
        ("references", with(&|p| p.references = u32::MAX)),
        ("key", with(&|p| p.key_id = u32::MAX)),
        ("compression", with(&|p| p.compression = u32::MAX)),
        ("checksum", summed),
        ("present", with(&|p| p.present.fill(u64::MAX))),
        ("crc32c", with(&|p| p.crcs.fill(u32::MAX))),
        ("LSN", with(&|p| p.lsns.fill(Lsn(u64::MAX)))),
    ];
    compare(&fields(&section(&document(), "### Extent page"), 0), &encoded(&empty(), 0), cases);
}

#[test]
fn the_journal_batch_is_as_drawn() {
    const ALL: u64 = u64::MAX;
    let place = |sequence, offset| Place { sequence, offset };
    let zero = place(0, 0);
    let batch = |nonce, at, tail, count, data| encode_batch(nonce, at, tail, 0, &[], count, data);
    let base = batch(0, zero, zero, 0, 0);
    let cases = vec![
        ("format", batch(ALL, zero, zero, 0, 0)),
        ("number", batch(0, place(ALL, 0), zero, 0, 0)),
        ("offset", batch(0, place(0, ALL), zero, 0, 0)),
        ("tail", batch(0, zero, place(ALL, ALL), 0, 0)),
        ("data", batch(0, zero, zero, 0, u32::MAX)),
        ("entries", batch(0, zero, zero, u32::MAX, 0)),
        ("pages", encode_batch(0, zero, zero, ALL, &[], 0, 0)),
    ];
    let text = section(&document(), "### Journal batch");
    let mut drawn = fields(&text, 0);
    // These two follow from the entries; they are read back below.
    assert_eq!(drawn.remove(7), (68, 4, "end".to_owned()));
    assert_eq!(drawn.remove(4), (56, 4, "header".to_owned()));
    compare(&drawn, &base, cases);
    assert!(text.contains(&format!("At {BATCH_HEADER_BYTES} the entries begin")));
    let long = encode_batch(0, zero, zero, 0, &[7; BLOCK_BYTES], 0, 0);
    assert_eq!((&long[56..60], long.len()), (&[2, 0, 0, 0][..], 2 * BLOCK_BYTES));
    assert_eq!(long[68..72], ((BATCH_HEADER_BYTES + BLOCK_BYTES) as u32).to_le_bytes());
    assert_eq!(BatchHeader::peek(&long, 0).map(|h| h.header_blocks), Some(2));
    assert!(text.contains(&format!("at\nmost {} MiB (`MAX_BATCH_BYTES`)", MAX_BATCH_BYTES >> 20)));
    assert!(text.contains(&format!("at most {} KiB (`MAX_ENTRIES_BYTES`)", MAX_ENTRIES_BYTES >> 10)));
}

fn encoded(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    encode_entry(&mut out, KEY, entry);
    out
}

fn record(body: RecordBody, request: Option<RequestTag>) -> Entry {
    let position = LogPosition::new(Epoch(1), Lsn(2));
    Entry::Record { record: Record { position, body, request }, commit: Lsn(1), data_block: 0, direct: None }
}

/// A write whose data lies outside its batch.
fn write_elsewhere() -> Entry {
    let Entry::Record { record, commit, data_block, .. } = record(write_of_one_block(), None) else {
        unreachable!("it is a record")
    };
    Entry::Record { record, commit, data_block, direct: Some(1 << 20) }
}

fn gateway() -> GatewayId {
    GatewayId { node: NodeId(1), incarnation: ProcessIncarnation(9) }
}

fn tag() -> RequestTag {
    RequestTag { gateway: gateway(), session: SessionId(1), seq: 2, low: 1 }
}

fn write_of_one_block() -> RecordBody {
    let range = BlockRange::new(BlockIndex(0), 1);
    RecordBody::Write(WriteData { range, data: Default::default(), crcs: vec![0].into() })
}

#[test]
fn the_journals_entries_are_as_drawn() {
    let text = section(&document(), "### Journal batch");
    let drawn = fields(&text, 1);
    let of = |volume, index, incarnation| SegmentKey {
        segment: SegmentId { volume: VolumeId(volume), index },
        incarnation: SegmentIncarnation(incarnation),
    };
    let with = |key| {
        let mut out = Vec::new();
        encode_entry(&mut out, key, &Entry::Cut(Lsn(0)));
        out
    };
    let changes = [of(u64::MAX, 0, 0), of(0, u32::MAX, 0), of(0, 0, u32::MAX)];
    for (key, field) in changes.into_iter().zip(&drawn[4..]) {
        let (a, b) = (with(KEY), with(key));
        let differ: Vec<usize> = (0..a.len()).filter(|i| a[*i] != b[*i]).collect();
        assert_eq!((differ[0], differ.len()), (field.0, field.1), "{}", field.2);
    }
    assert_eq!(ENTRY_HEADER_BYTES, 24);
    let heads: Vec<(usize, usize)> = drawn[..4].iter().map(|f| (f.0, f.1)).collect();
    assert_eq!(heads, [(0, 4), (4, 1), (5, 1), (6, 2)]);
    let fence = |session| RecordBody::Fence { gateway: gateway(), session };
    let zero = RecordBody::Zero(BlockRange::new(BlockIndex(0), 1));
    let session = Some(SessionId(3));
    // Kind, flags, and how long the fields are by the table: a record is 24, a request 34.
    let samples = [
        ("start", record(RecordBody::Start, None), 0, 24),
        ("start", record(RecordBody::Start, Some(tag())), 1, 24 + 34),
        ("write", record(write_of_one_block(), Some(tag())), 1, 24 + 34 + 12 + 4),
        ("write", write_elsewhere(), 4, 24 + 16 + 4),
        ("zero", record(zero, None), 0, 24 + 8),
        ("fence", record(fence(None), None), 0, 24 + 10),
        ("fence", record(fence(session), Some(tag())), 3, 24 + 34 + 10 + 8),
        ("seal", Entry::Seal(Epoch(1)), 0, 8),
        ("cut", Entry::Cut(Lsn(1)), 0, 8),
        ("mark", Entry::Mark(Lsn(1)), 0, 8),
    ];
    let kinds = table(&text, 2);
    let kind = |name: &str| kinds.iter().find(|k| k[1] == name).expect("the kind is drawn")[0].clone();
    for (name, entry, flags, len) in samples {
        let bytes = encoded(&entry);
        assert_eq!((bytes[4].to_string(), bytes[5]), (kind(name), flags), "{name}");
        assert_eq!(bytes.len(), ENTRY_HEADER_BYTES + len, "{name}");
        assert_eq!(bytes[..4], (len as u32).to_le_bytes(), "{name}");
    }
    assert_eq!(encoded(&Entry::State(SegmentState::default()))[4].to_string(), kind("state"));
    assert_eq!(kinds.len(), 8);
}

#[test]
fn the_cost_of_a_write_is_as_derived() {
    let entry = encoded(&record(write_of_one_block(), Some(tag()))).len();
    let share = (BLOCK_BYTES - BATCH_HEADER_BYTES) / entry;
    let zero = Place { sequence: 0, offset: 0 };
    let blocks = |writes: usize| {
        let entries = vec![0; entry * writes];
        encode_batch(0, zero, zero, 0, &entries, writes as u32, writes as u32).len() / BLOCK_BYTES + writes
    };
    let text = section(&document(), "### What a 4 KiB write costs");
    for said in [
        format!("{} KiB to the journal", blocks(1) * 4),
        format!("takes {entry} bytes"),
        format!("\n{share} such writes"),
        format!("32 of them cost {} blocks, {} KiB each", blocks(32), blocks(32) as f64 * 4.0 / 32.0),
    ] {
        assert!(text.contains(&said), "'{said}' is what the code does, and lacks");
    }
    assert_eq!((blocks(share), blocks(share + 1)), (share + 1, share + 3));
}

#[test]
fn a_disk_is_divided_as_drawn() {
    let parts = layout(6 << 30, &StoreConfig::default()).expect("6 GiB are enough");
    let drawn: Vec<[u64; 2]> = table(&section(&document(), "## A disk"), 0)
        .iter()
        .map(|c| [&c[1], &c[2]].map(|n| n.replace(',', "").parse().expect("a number of bytes")))
        .collect();
    let coded = [parts.journal, parts.metadata, parts.extents].map(|r| [r.start, r.end]);
    assert_eq!(drawn, coded, "left: docs/formats.md, right: the code");
}

#[test]
fn the_first_words_between_nodes_are_as_drawn() {
    use holdfast_net::hello::{ANSWER_BYTES, Answer, Hello, Purpose, WIRE_VERSION};
    let hello_by = |path, purpose, node, run| {
        Hello { purpose, node: NodeId(node), incarnation: ProcessIncarnation(run), path }.encode()
    };
    let hello = |purpose, node, run| hello_by(PeerPath::Direct, purpose, node, run);
    let base = hello(Purpose::Data, 0, 0);
    let text = section(&document(), "### Hello");
    let drawn = fields(&text, 0);
    assert_eq!(base[..6], [b'H', b'F', b'h', b'i', WIRE_VERSION as u8, 0]);
    for (changed, field) in [
        (hello(Purpose::Bulk, 0, 0), &drawn[2]),
        (hello_by(PeerPath::Relayed, Purpose::Data, 0, 0), &drawn[3]),
        (hello(Purpose::Data, u16::MAX, 0), &drawn[4]),
        (hello(Purpose::Data, 0, u64::MAX), &drawn[5]),
    ] {
        let differ: Vec<usize> = (0..base.len()).filter(|i| base[*i] != changed[*i]).collect();
        assert_eq!((differ[0], differ.len()), (field.0, field.1), "{}", field.2);
    }
    let last = drawn.last().expect("there are fields");
    assert_eq!(last.0 + last.1, base.len());
    assert!(text.contains(&format!("The answer has {ANSWER_BYTES} bytes")));
    let codes = [
        Answer::Welcome,
        Answer::OtherVersion(1),
        Answer::OtherNode,
        Answer::Garbage,
        Answer::NotAMember,
        Answer::Unreachable,
    ];
    assert_eq!(codes.map(|a| a.encode()[6]), [0, 1, 2, 3, 4, 5]);
    let between = section(&document(), "## Between nodes");
    for purpose in Purpose::ALL {
        let code = hello(purpose, 0, 0)[6];
        let words = between.replace('\n', " ");
        assert!(words.contains(&format!(" {code} {purpose}")), "{code} {purpose} lacks");
    }
}

#[test]
fn bounds_and_versions_on_the_wire_are_as_drawn() {
    use holdfast_net::frame::{MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES};
    use holdfast_replication::wire;
    let frame = section(&document(), "### Frame");
    assert!(frame.contains(&format!("of the header, at most {} MiB", MAX_HEADER_BYTES >> 20)));
    assert!(frame.contains(&format!("of the payload, at most {} MiB", MAX_PAYLOAD_BYTES >> 20)));
    let text = section(&document(), "### Messages");
    assert!(text.contains(&format!("a version byte, {},", wire::VERSION)));
    assert!(text.contains(&format!("{} records (`MAX_RECORDS`)", wire::MAX_RECORDS)));
}

#[test]
fn the_files_of_a_data_folder_are_as_drawn() {
    let source = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../shell/node/src/");
        std::fs::read_to_string(format!("{folder}{name}")).expect("the code is there")
    };
    let (folder, disks) = (source("config.rs"), source("control/disks.rs"));
    let folder = folder.split("self.0.join(\"").skip(1);
    let disks = disks.split("dir.path().join(\"").skip(1);
    let mut coded: Vec<&str> = folder.chain(disks).filter_map(|rest| rest.split('"').next()).collect();
    let rows = table(&section(&document(), "## In the data folder"), 0);
    let mut drawn: Vec<&str> = rows
        .iter()
        .flat_map(|r| r[0].split(", "))
        .map(|name| name.trim_matches('`').trim_end_matches('/'))
        .collect();
    coded.sort_unstable();
    drawn.sort_unstable();
    assert_eq!(drawn, coded, "left: docs/formats.md, right: shell/node/src");
}
