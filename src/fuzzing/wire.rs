//! Messages and handshakes.

use super::Input;
use crate::config::Secret;
use crate::wire::auth::SessionKey;
use crate::wire::datagram::Header;
use crate::wire::handshake::{ExpectAuth, ExpectChallenge, Opening, Refusal, on_hello};
use crate::wire::message::{Ack, Auth, ControlCommand, DataCommand, Hello, Malformed};

/// Any bytes are taken for every message: what is accepted is encoded as it was, what is not has a reason in one line.
/// Then two honest ends with the input's names and tokens meet.
pub(super) fn messages(bytes: &[u8]) {
    if let Some(bytes) = bytes.first_chunk() {
        same(Hello::decode(bytes).map(|hello| hello.encode()), bytes);
        match (on_hello(bytes), Hello::decode(bytes)) {
            (Ok(Opening::Control(digest)), Ok(Hello::Control(same))) => assert_eq!(digest.0, same),
            (Ok(Opening::Data(key)), Ok(Hello::Data(same))) => assert_eq!(key, same),
            (Err(one), Err(other)) => assert_eq!(one, other),
            other => panic!("{other:?}"),
        }
        let token = Secret::new("token");
        let challenged = ExpectChallenge::new("service", &token).1.on_challenge(bytes);
        assert_eq!(challenged.is_ok(), matches!(Hello::decode(bytes), Ok(Hello::Control(_))));
    }
    if let Some(bytes) = bytes.first_chunk() {
        assert_eq!(&Auth::decode(bytes).encode(), bytes);
    }
    if let Some(bytes) = bytes.first_chunk() {
        same(Ack::decode(bytes).map(Ack::encode), bytes);
        same(ControlCommand::decode(bytes).map(ControlCommand::encode), bytes);
        same(DataCommand::decode(bytes).map(DataCommand::encode), bytes);
    }
    datagram(bytes);
    meeting(Input::new(bytes));
}

/// What was decoded is encoded as it was.
fn same<const N: usize>(encoded: Result<[u8; N], Malformed>, bytes: &[u8; N]) {
    match encoded {
        Ok(encoded) => assert_eq!(&encoded, bytes),
        Err(fault) => assert!(!fault.to_string().contains(char::is_control)),
    }
}

/// A header means the same however it is encoded, and is not judged before it is whole.
fn datagram(bytes: &[u8]) {
    match Header::decode(bytes) {
        Ok(Some((header, len))) => {
            assert_eq!(len, 1 + usize::from(bytes[0]));
            let (again, used) = header.encode();
            assert!(used <= len);
            assert_eq!(Header::decode(&again[..used]), Ok(Some((header, used))));
            for end in 0..len {
                assert_eq!(Header::decode(&bytes[..end]), Ok(None));
            }
        }
        Ok(None) => assert!(bytes.first().is_none_or(|announced| bytes.len() <= usize::from(*announced))),
        Err(fault) => assert!(!fault.to_string().contains(char::is_control)),
    }
}

/// A server lets in who knows the service's token, and nobody else; both then have the same key.
fn meeting(mut input: Input<'_>) {
    let flip = (usize::from(input.byte()), input.byte());
    let name = String::from_utf8_lossy(input.some()).into_owned();
    let (client_token, server_token) = (input.some(), input.some());
    let same_token = client_token == server_token;
    let (client_token, server_token) = (Secret::new(client_token), Secret::new(server_token));
    let known = input.byte() % 4 != 0;
    let mut nonce = [0; 32];
    nonce.iter_mut().zip(input.rest()).for_each(|(to, from)| *to = *from);

    let (hello, client) = ExpectChallenge::new(&name, &client_token);
    assert!(matches!(on_hello(&hello), Ok(Opening::Control(_))));
    let (challenge, server) = ExpectAuth::new(nonce);
    let (mut auth, client) = client.on_challenge(&challenge).unwrap();
    if let Some(byte) = auth.get_mut(flip.0) {
        *byte ^= flip.1;
    }
    let verdict = server.on_auth(&auth, known.then_some(&server_token).into_iter()).map(|(key, _)| key);
    let untouched = flip.0 >= auth.len() || flip.1 == 0;
    assert_eq!(verdict.is_ok(), untouched && same_token && known);
    let ack = match verdict {
        Ok(_) => Ack::Ok,
        Err(refusal) => refusal,
    };
    match (client.on_ack(&ack.encode()).unwrap(), verdict) {
        (Ok(client_key), Ok(server_key)) => {
            assert_eq!(client_key, server_key);
            assert_eq!(client_key, SessionKey::derive(server_token.expose(), &nonce));
        }
        (Err(Refusal::AuthFailed), Err(Ack::AuthFailed)) => {}
        other => panic!("{other:?}"),
    }
}
