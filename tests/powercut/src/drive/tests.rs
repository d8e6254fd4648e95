use super::*;

fn drive(size: u64) -> Drive {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    Drive::new(file).unwrap()
}

#[test]
fn a_reader_sees_the_cache_and_the_disk_does_not() {
    let mut drive = drive(8192);
    drive.write(1000, &[7; 100], false).unwrap();
    assert_eq!(drive.read(999, 102).unwrap(), [&[0][..], &[7; 100], &[0]].concat());
    let mut on_disk = [1; 8192];
    drive.backing.read_exact_at(&mut on_disk, 0).unwrap();
    assert_eq!(on_disk, [0; 8192]);
    drive.flush().unwrap();
    drive.backing.read_exact_at(&mut on_disk, 0).unwrap();
    assert_eq!(on_disk[1000..1100], [7; 100]);
    assert_eq!(drive.cached_bytes(), 0);
}

#[test]
fn a_durable_write_takes_no_other_write_with_it() {
    for seed in 0..20 {
        let mut drive = drive(8192);
        drive.write(0, &[1; 4096], false).unwrap();
        drive.write(512, &[2; 512], true).unwrap();
        drive.cut(seed).unwrap();
        let content = drive.read(0, 8192).unwrap();
        assert_eq!(
            content[512..1024],
            [2; 512],
            "seed {seed}: durable, and not overwritten by an older write"
        );
        assert!(content[..512] == [0; 512] || content[..512] == [1; 512]);
    }
}

#[test]
fn fates_differ_and_tearing_is_by_sector() {
    let mut drive = drive(1 << 20);
    for block in 0..256 {
        drive.write(block * 4096, &[9; 4096], false).unwrap();
    }
    let report = drive.cut(42).unwrap();
    assert_eq!(report.kept + report.dropped + report.torn, 256);
    assert!(report.kept > 40 && report.dropped > 40 && report.torn > 40, "{report:?}");
    let content = drive.read(0, 1 << 20).unwrap();
    let mixed = content.chunks(4096).filter(|block| block.contains(&0) && block.contains(&9)).count() as u64;
    assert!(mixed > 0 && mixed <= report.torn);
    assert!(content.chunks(512).all(|sector| sector == [0; 512] || sector == [9; 512]), "sectors are whole");
}

#[test]
fn the_same_seed_leaves_the_same() {
    let leave = |seed| {
        let mut drive = drive(1 << 16);
        for i in 0..64u64 {
            drive.write(mix(i) % 120 * 512, &[i as u8; 3000], false).unwrap();
        }
        drive.cut(seed).unwrap();
        drive.read(0, 1 << 16).unwrap()
    };
    assert_eq!(leave(1), leave(1));
    assert_ne!(leave(1), leave(2));
}

#[test]
fn an_older_write_may_survive_where_the_newer_one_is_dropped() {
    let outcomes: std::collections::BTreeSet<u8> = (0..100)
        .map(|seed| {
            let mut drive = drive(512);
            drive.write(0, &[1; 512], false).unwrap();
            drive.write(0, &[2; 512], false).unwrap();
            drive.cut(seed).unwrap();
            drive.read(0, 1).unwrap()[0]
        })
        .collect();
    assert_eq!(outcomes, [0, 1, 2].into());
}

#[test]
fn a_file_that_grew_unflushed_falls_back() {
    let mut drive = drive(0);
    drive.write(0, &[1; 700], false).unwrap();
    drive.flush().unwrap();
    assert_eq!(drive.backing.metadata().unwrap().len(), 700);
    drive.write(700, &[2; 10_000], false).unwrap();
    assert_eq!(drive.size(), 10_700);
    drive.cut(3).unwrap();
    assert_eq!(drive.read(0, 700).unwrap()[..512], [1; 512]);
    assert_eq!(drive.size(), drive.backing.metadata().unwrap().len());
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    let mut drive = drive(0);
    drive.write(0, &[5; 4096], false).unwrap();
    drive.set_size(100).unwrap();
    drive.set_size(4096).unwrap();
    assert_eq!(drive.read(0, 4096).unwrap(), [&[5; 100][..], &[0; 3996]].concat());
    drive.flush().unwrap();
    assert_eq!(drive.read(0, 4096).unwrap(), [&[5; 100][..], &[0; 3996]].concat());
}
