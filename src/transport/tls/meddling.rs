//! Tests: a network that does not leave the bytes alone.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::Stream;
use super::hostile::{Parties, next_record};
use super::record::HEADER;
use super::tests::{noise, tcp_pair};

/// What is done to one record on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meddling {
    Flip,
    Lengthen,
    Shorten,
    CutInside,
    CutBefore,
    Drop,
    Double,
    Swap,
    Insert,
    Overwrite,
}

const MEDDLINGS: [Meddling; 10] = [
    Meddling::Flip,
    Meddling::Lengthen,
    Meddling::Shorten,
    Meddling::CutInside,
    Meddling::CutBefore,
    Meddling::Drop,
    Meddling::Double,
    Meddling::Swap,
    Meddling::Insert,
    Meddling::Overwrite,
];

/// What must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All arrives.
    Whole,
    /// The receiver fails.
    Fault,
    /// An end between two records is no fault, because rathole 0.5 ends so.
    Either,
}

/// Carries records, and meddles with the one numbered `at`. Early ones may be of the handshake: there the end
/// follows, because both ends may wait for each other.
async fn meddle(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    at: usize,
    how: Meddling,
    random: &mut fastrand::Rng,
) -> Outcome {
    let mut number = 0;
    let mut outcome = Outcome::Whole;
    while let Some(mut record) = next_record(&mut from).await {
        let mut bytes = Vec::new();
        let mut cut = false;
        if number == at {
            outcome = Outcome::Fault;
            cut = at < 8;
            match how {
                Meddling::Flip => {
                    // Lengths have their own cases. In TLS 1.2 nothing protects the version.
                    let places: Vec<_> = (0..record.len()).filter(|at| !(1..HEADER).contains(at)).collect();
                    record[places[random.usize(..places.len())]] ^= 1 << random.u8(..8);
                    bytes = record;
                }
                Meddling::Lengthen | Meddling::Shorten => {
                    let length = record.len() - HEADER;
                    let other = match how {
                        Meddling::Lengthen => length + random.usize(1..300),
                        _ => random.usize(..length),
                    };
                    record[3..HEADER].copy_from_slice(&(other as u16).to_be_bytes());
                    record.resize_with(HEADER + other, || random.u8(..));
                    bytes = record;
                }
                Meddling::CutInside => {
                    bytes = record[..random.usize(1..record.len())].to_vec();
                    cut = true;
                }
                Meddling::CutBefore => {
                    outcome = Outcome::Either;
                    cut = true;
                }
                Meddling::Drop | Meddling::Swap if cut => outcome = Outcome::Either,
                Meddling::Drop => {
                    let next = next_record(&mut from).await;
                    outcome = if next.is_some() { Outcome::Fault } else { Outcome::Whole };
                    bytes = next.unwrap_or_default();
                }
                Meddling::Double => {
                    let next = if cut { None } else { next_record(&mut from).await };
                    // What follows the last record, which is the end, is not looked at.
                    outcome = if next.is_some() || cut { Outcome::Fault } else { Outcome::Whole };
                    bytes = [&record[..], &record, &next.unwrap_or_default()].concat();
                }
                Meddling::Swap => {
                    let next = next_record(&mut from).await;
                    outcome = if next.is_some() { Outcome::Fault } else { Outcome::Whole };
                    bytes = [&next.unwrap_or_default()[..], &record].concat();
                }
                Meddling::Insert => {
                    let mut body = vec![0; random.usize(..99)];
                    random.fill(&mut body);
                    let kind = random.u8(20..=24);
                    bytes = [&[kind, 3, 3, 0, body.len() as u8][..], &body, &record].concat();
                }
                Meddling::Overwrite => {
                    record.fill_with(|| random.u8(..));
                    // What is no header is refused at once; a plausible one would be Lengthen or Shorten.
                    record[1] = 0x55;
                    bytes = record;
                }
            }
        } else {
            bytes = record;
        }
        number += 1;
        if to.write_all(&bytes).await.is_err() || cut {
            break;
        }
    }
    let _ = to.shutdown().await;
    // Goes on taking, so that the sender is not reset before it has read its answer.
    while next_record(&mut from).await.is_some() {}
    outcome
}

/// Sends all and takes all that comes; says what came and how it ended.
async fn converse(stream: io::Result<Stream>, send: &[u8]) -> (Vec<u8>, io::Result<()>) {
    let mut heard = Vec::new();
    let stream = match stream {
        Ok(stream) => stream,
        Err(fault) => return (heard, Err(fault)),
    };
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async {
        for part in send.chunks(3000) {
            write.write_all(part).await?;
            write.flush().await?;
        }
        write.shutdown().await
    };
    let (_, end) = tokio::join!(sending, read.read_to_end(&mut heard));
    (heard, end.map(drop))
}

#[tokio::test]
async fn a_network_that_meddles_gets_no_false_byte_through() {
    if crate::transport::tls::testing::no_openssl() {
        return;
    }
    let parties = Parties::new();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut noticed, mut complete) = (0, 0);
    for round in 0..400 {
        let (how, tls13, upwards) = (MEDDLINGS[round % 10], round / 10 % 2 == 0, round / 20 % 2 == 0);
        let at = random.usize(..18);
        let place = format!("round {round}: {how:?} of record {at}, upwards: {upwards}, TLS 1.3: {tls13}");
        let (acceptor, connector) = parties.get(tls13);
        let ((near, middle1), (middle2, far)) = (tcp_pair().await, tcp_pair().await);
        let ((client_out, to_client), (server_out, to_server)) = (middle1.into_split(), middle2.into_split());
        let (up, down) = (noise(30_000, 1), noise(30_000, 2));
        let never = usize::MAX;
        let mut other = fastrand::Rng::with_seed(0);
        let (for_up, for_down) = if upwards { (at, never) } else { (never, at) };
        let all = async {
            tokio::join!(
                async { converse(connector.connect(near).await, &up).await },
                async { converse(acceptor.accept(far).await, &down).await },
                async {
                    let (random, other) = (&mut random, &mut other);
                    let (for_up_random, for_down_random) =
                        if upwards { (random, other) } else { (other, random) };
                    tokio::join!(
                        meddle(client_out, to_server, for_up, how, for_up_random),
                        meddle(server_out, to_client, for_down, how, for_down_random)
                    )
                }
            )
        };
        let done = timeout(Duration::from_secs(20), all).await;
        let (client, server, meddled) = done.unwrap_or_else(|_| panic!("{place}: no end"));
        assert!(down.starts_with(&client.0), "{place}: the client heard something false");
        assert!(up.starts_with(&server.0), "{place}: the server heard something false");
        let (heard, end, sent) =
            if upwards { (server.0, server.1, &up) } else { (client.0, client.1, &down) };
        let whole = heard.len() == sent.len();
        match if upwards { meddled.0 } else { meddled.1 } {
            Outcome::Fault => {
                assert!(end.is_err(), "{place}: not noticed");
                noticed += 1;
            }
            Outcome::Whole => {
                assert!(end.is_ok() && whole, "{place}: {end:?}");
                complete += 1;
            }
            Outcome::Either => {}
        }
    }
    assert!(noticed > 200 && complete > 5, "{noticed} {complete}");
}
