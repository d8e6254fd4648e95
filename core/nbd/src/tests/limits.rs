//! What a peer may not do: take memory without bound, or bring the session down with garbage.

use super::*;
use crate::wire;
use proptest::prelude::*;

#[test]
fn input_is_not_wanted_while_much_is_in_flight() {
    let mut client = Client::on_demo(true);
    let write = [command(0, 1, 1, 0, 4 << 20), vec![5; 4 << 20]].concat();
    client.send(&write);
    assert!(client.session.wants_input());
    client.send(&write);
    assert!(!client.session.wants_input());
    client.send(&write);
    assert_eq!(client.submitted.len(), 2, "what was read already waits");
    let (tag, _) = client.submitted.remove(0);
    client.complete(tag, Ok(BlockReply::Done));
    assert_eq!(client.submitted.len(), 2, "and goes on when there is room");

    let mut client = Client::on_demo(true);
    (0..2000).for_each(|i| drop(client.send(&command(0, 3, i, 0, 0))));
    assert_eq!(client.submitted.len(), 1024);
    assert!(!client.session.wants_input());
}

#[test]
fn a_write_that_is_too_long_closes_the_connection() {
    let mut client = Client::on_demo(true);
    client.send(&command(0, 1, 1, 0, wire::MAX_PAYLOAD_BYTES + 512));
    assert!(matches!(client.closed, Some(CloseReason::Protocol(_))));
}

/// Pieces of valid conversations, and garbage between them.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let any_option =
        (0u32..13, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(n, d)| option(n, &d));
    let any_command = (any::<u16>(), 0u16..9, any::<u64>(), 0..2 * SIZE, 0u32..20_000)
        .prop_map(|(flags, kind, cookie, offset, len)| command(flags & 31, kind, cookie, offset, len));
    prop_oneof![
        any_option,
        Just(option(7, &info_request("demo", &[3]))),
        Just(option(8, &[])),
        Just(option(10, &meta_request("demo", &["base:allocation"]))),
        any_command.clone(),
        any_command.prop_map(|c| [c, vec![0; 4096]].concat()),
        proptest::collection::vec(any::<u8>(), 0..64),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_input_makes_it_panic_however_it_is_cut(
        fragments in proptest::collection::vec(fragment(), 0..12),
        cuts in proptest::collection::vec(1usize..50, 1..8),
    ) {
        let mut client = Client::greeted();
        let bytes = fragments.concat();
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() || client.closed.is_some() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            rest = later;
            client.send(now);
            prop_assert!(client.submitted.len() <= 1024);
            if let Some((tag, _)) = client.submitted.pop() {
                client.complete(tag, Ok(BlockReply::Done));
            }
        }
        // The same in one piece asks for the same commands.
        let mut whole = Client::greeted();
        whole.send(&bytes);
        if client.closed.is_none() {
            prop_assert_eq!(whole.logged_in, client.logged_in);
        }
    }
}

#[test]
fn a_payload_that_drips_in_costs_no_more_than_its_bytes() {
    let mut input = crate::input::Input::default();
    for i in 0..200_000u32 {
        input.push(Bytes::from(vec![i as u8]));
    }
    let pieces = input.take(200_000);
    assert!(pieces.len() < 200, "{}", pieces.len());
    assert!(pieces.concat().iter().enumerate().all(|(i, byte)| *byte == i as u8));
}
