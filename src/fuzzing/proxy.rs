//! A proxy's answers.

use tokio::io::AsyncReadExt;

use super::{Input, block_on, fed, pair, pieces};
use crate::config::{Endpoint, Host, Proxy, ProxyKind, Secret};
use crate::transport::proxy::handshake;

/// What a proxy answers is judged the same however it comes in pieces, no byte behind the answer is read, and a refusal
/// is one line without the password.
pub(super) fn replies(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let how = input.byte();
    let cuts = input.cuts();
    let answer = input.rest();
    let kind = if how & 1 == 0 { ProxyKind::Http } else { ProxyKind::Socks5 };
    let credentials = (how & 2 != 0).then(|| ("user".to_owned(), Secret::new("pass-f00d")));
    let proxy = Proxy { kind, endpoint: endpoint("proxy.test"), credentials };
    let whole = asked(&proxy, &[answer]);
    let cut = asked(&proxy, &pieces(answer, &cuts));
    match (&whole, &cut) {
        (Ok(rest), Ok(same)) => {
            assert_eq!(rest, same);
            assert!(answer.ends_with(rest) && rest.len() < answer.len());
        }
        // Where an answer that is too long is cut decides which of its faults is seen first.
        (Err(fault), Err(other)) => {
            for fault in [fault, other] {
                assert!(!fault.contains(char::is_control) && !fault.contains("pass-f00d"), "{fault}");
            }
        }
        other => panic!("whole and cut: {other:?}"),
    }
}

fn endpoint(name: &str) -> Endpoint {
    Endpoint { host: Host::Name(name.to_owned()), port: 1 }
}

/// What follows the answer, or the refusal.
fn asked(proxy: &Proxy, answer: &[&[u8]]) -> Result<Vec<u8>, String> {
    block_on(async {
        let (mut tcp, mut peer) = pair();
        let remote = endpoint("server.test");
        let asked = async {
            handshake(proxy, &mut tcp, &remote).await.map_err(|fault| fault.to_string())?;
            let mut rest = Vec::new();
            tcp.read_to_end(&mut rest).await.unwrap();
            Ok(rest)
        };
        fed(asked, &mut peer, answer).await
    })
}
