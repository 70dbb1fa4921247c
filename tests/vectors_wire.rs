//! Golden vectors A, B, C, D (protocol-v1-vectors.json) through `rathole::wire`: decoded by the side that receives
//! them, encoded where ours sends them. And: every vector of the file belongs to some test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rathole::config::Secret;
use rathole::wire::datagram::Header;
use rathole::wire::handshake::{ExpectAuth, ExpectChallenge, Opening, Refusal, on_hello};
use rathole::wire::{Ack, Auth, ControlCommand, DataCommand, Digest, Hello, ServiceDigest, SessionKey};
use serde_json::Value;

/// One vector: its bytes, and what they mean.
struct Vector {
    bytes: Vec<u8>,
    fields: Value,
}

impl Vector {
    fn fixed<const N: usize>(&self) -> [u8; N] {
        self.bytes.as_slice().try_into().unwrap()
    }

    fn text(&self, field: &str) -> &str {
        self.fields[field].as_str().unwrap_or_else(|| panic!("no field {field} in {}", self.fields))
    }

    fn digest(&self, field: &str) -> Digest {
        unhex(self.text(field)).try_into().unwrap()
    }

    fn number(&self, field: &str) -> u64 {
        self.fields[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {}", self.fields))
    }
}

/// The vectors that one test has not asked for yet.
struct Vectors {
    all: BTreeMap<String, Vector>,
    asked: BTreeSet<String>,
}

impl Vectors {
    /// Those of one letter.
    fn load(letter: char) -> Self {
        let all: BTreeMap<_, _> =
            names_and_vectors().into_iter().filter(|(name, _)| name.starts_with(letter)).collect();
        assert!(!all.is_empty());
        Vectors { all, asked: BTreeSet::new() }
    }

    /// The one whose name begins so.
    fn get(&mut self, number: &str) -> &Vector {
        let prefix = format!("{number}_");
        let mut found = self.all.iter().filter(|(name, _)| name.starts_with(&prefix));
        let (name, vector) = found.next().unwrap_or_else(|| panic!("no vector {number}"));
        assert!(found.next().is_none(), "two vectors {number}");
        self.asked.insert(name.clone());
        vector
    }

    /// None was forgotten.
    fn end(self) {
        let left: Vec<_> = self.all.keys().filter(|name| !self.asked.contains(*name)).collect();
        assert!(left.is_empty(), "vectors that no assertion has used: {left:?}");
    }
}

fn names_and_vectors() -> Vec<(String, Vector)> {
    let file: Value = serde_json::from_str(include_str!("protocol-v1-vectors.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    let read = |vector: &Value| {
        let bytes = unhex(vector["hex"].as_str().unwrap());
        assert_eq!(bytes.len() as u64, vector["len"].as_u64().unwrap(), "{vector}");
        (vector["name"].as_str().unwrap().to_owned(), Vector { bytes, fields: vector["fields"].clone() })
    };
    vectors.iter().map(read).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len() % 2 == 0);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

/// A whole control handshake, both sides ours, whose every message is a vector.
fn control_handshake(
    name: &str,
    token: &str,
    hello: &[u8],
    challenge: Option<&[u8]>,
    nonce: Digest,
    auth: &[u8],
) -> SessionKey {
    let token = secret(token);
    // The client's side.
    let (sent, client) = ExpectChallenge::new(name, &token);
    assert_eq!(sent, hello, "the client's hello for {name:?}");
    // The server's side.
    let hello: [u8; Hello::LEN] = hello.try_into().unwrap();
    let Opening::Control(service) = on_hello(&hello).unwrap() else { panic!("not a control hello") };
    assert_eq!(service, ServiceDigest::of(name));
    let (sent_challenge, server) = ExpectAuth::new(nonce);
    if let Some(challenge) = challenge {
        assert_eq!(sent_challenge, challenge, "the server's hello");
    }
    let (sent, client) = client.on_challenge(&sent_challenge).unwrap();
    assert_eq!(sent, auth, "auth for {name:?}");
    let servers = server.on_auth(&sent, [&token].into_iter()).expect("the right token").0;
    let clients = client.on_ack(&Ack::Ok.encode()).unwrap().expect("accepted");
    assert_eq!(servers, clients);
    assert_eq!(servers.0, auth, "the session key is the auth digest");
    servers
}

#[test]
fn a_tcp_service() {
    let mut v = Vectors::load('A');
    let hello = v.get("A1");
    let (name, hello) = (hello.text("service_name").to_owned(), hello.bytes.clone());
    let nonce = v.get("A2").digest("nonce");
    let challenge = v.get("A2").bytes.clone();
    let token = v.get("A3").text("token").to_owned();
    let auth = v.get("A3").bytes.clone();
    let key = control_handshake(&name, &token, &hello, Some(&challenge), nonce, &auth);

    assert_eq!(Hello::decode(&v.get("A1").fixed()).unwrap(), Hello::Control(v.get("A1").digest("digest")));
    assert_eq!(Hello::decode(&v.get("A2").fixed()).unwrap(), Hello::Control(nonce));
    assert_eq!(Auth::decode(&v.get("A3").fixed()), Auth(SessionKey(v.get("A3").digest("digest"))));
    both(v.get("A4"), Ack::decode, Ack::encode, Ack::Ok);
    both(v.get("A5"), ControlCommand::decode, ControlCommand::encode, ControlCommand::HeartBeat);
    both(v.get("A6"), ControlCommand::decode, ControlCommand::encode, ControlCommand::CreateDataChannel);
    data_hello(v.get("A7"), key);
    both(v.get("A8"), DataCommand::decode, DataCommand::encode, DataCommand::StartForwardTcp);
    v.end();
}

#[test]
fn b_udp_service() {
    let mut v = Vectors::load('B');
    let name = v.get("B1").text("service_name").to_owned();
    let hello = v.get("B1").bytes.clone();
    let nonce = v.get("B2").digest("nonce");
    let challenge = v.get("B2").bytes.clone();
    let token = v.get("B3").text("token").to_owned();
    let auth = v.get("B3").bytes.clone();
    let key = control_handshake(&name, &token, &hello, Some(&challenge), nonce, &auth);
    data_hello(v.get("B4"), key);
    both(v.get("B5"), DataCommand::decode, DataCommand::encode, DataCommand::StartForwardUdp);
    for number in ["B6", "B7", "B8", "B9", "B10", "B11"] {
        frame(v.get(number));
    }
    v.end();
}

#[test]
fn c_upstream_server() {
    let mut v = Vectors::load('C');
    let hello = v.get("C1").bytes.clone();
    let (name, token) = (v.get("C1").text("service_name").to_owned(), v.get("C1").text("token").to_owned());
    let nonce = v.get("C2").digest("nonce");
    let challenge = v.get("C2").bytes.clone();
    let auth = v.get("C3").bytes.clone();
    control_handshake(&name, &token, &hello, Some(&challenge), nonce, &auth);
    both(v.get("C4"), Ack::decode, Ack::encode, Ack::Ok);
    for (number, count) in [("C5", 8), ("C8", 2)] {
        let commands = v.get(number);
        assert_eq!(commands.number("count"), count);
        assert_eq!(commands.bytes, ControlCommand::CreateDataChannel.encode().repeat(count as usize));
        for command in commands.bytes.chunks(4) {
            let command = command.try_into().expect("whole commands");
            assert_eq!(ControlCommand::decode(command), Ok(ControlCommand::CreateDataChannel));
        }
    }
    both(v.get("C6"), ControlCommand::decode, ControlCommand::encode, ControlCommand::HeartBeat);
    // The command is read exactly; what follows is the visitor's.
    let start = v.get("C7");
    let (command, payload) = start.bytes.split_first_chunk::<4>().unwrap();
    assert_eq!(DataCommand::decode(command), Ok(DataCommand::StartForwardTcp));
    assert_eq!(payload, unhex(start.text("payload")));
    both(v.get("C9"), DataCommand::decode, DataCommand::encode, DataCommand::StartForwardUdp);
    frame(v.get("C10"));
    frame(v.get("C11"));
    both(v.get("C13"), Ack::decode, Ack::encode, Ack::AuthFailed);

    // C12, received: our client understands upstream's early refusal, though it has sent Auth meanwhile.
    let refusal = v.get("C12");
    let nonce = refusal.digest("hello_nonce");
    let (challenge, ack) = refusal.bytes.split_first_chunk::<{ Hello::LEN }>().unwrap();
    let token = secret(&token);
    let (_, client) = ExpectChallenge::new("nobody", &token);
    let (auth, client) = client.on_challenge(challenge).unwrap();
    let verdict = client.on_ack(ack.try_into().unwrap()).unwrap();
    assert_eq!(verdict, Err(Refusal::ServiceNotExist));
    // C12, sent: our documented difference. The same hello, but Auth is read first, and the answer to it is the
    // one to a wrong token, so that strangers cannot ask which services exist.
    let (sent, server) = ExpectAuth::new(nonce);
    assert_eq!(sent, *challenge);
    let unknown = server.on_auth(&auth, std::iter::empty());
    assert_eq!(unknown, Err(Ack::AuthFailed));
    assert_ne!(Ack::AuthFailed.encode(), ack);
    v.end();
}

#[test]
fn d_hash_edge_cases() {
    let mut v = Vectors::load('D');
    for (hello, auth) in [("D1", "D2"), ("D3", "D4")] {
        let name = v.get(hello).text("service_name").to_owned();
        let hello = v.get(hello).bytes.clone();
        let auth = v.get(auth);
        assert_eq!(auth.text("service_name"), name);
        assert_eq!(auth.bytes, auth.digest("digest"));
        let (token, nonce) = (auth.text("token"), auth.digest("nonce"));
        control_handshake(&name, token, &hello, None, nonce, &auth.bytes);
        // An empty token is one token among others.
        let (_, server) = ExpectAuth::new(nonce);
        let another = secret("another");
        let wrong = server.on_auth(&auth.fixed(), [&another].into_iter());
        assert_eq!(wrong, Err(Ack::AuthFailed));
    }
    v.end();
}

#[test]
fn unknown_service_with_an_empty_token_is_refused() {
    // The work for an unknown service is done with an empty token; that must not let anyone in.
    let (_, server) = ExpectAuth::new([7; 32]);
    let auth = Auth(SessionKey::derive(b"", &[7; 32])).encode();
    assert_eq!(server.on_auth(&auth, std::iter::empty()), Err(Ack::AuthFailed));
}

#[test]
fn every_vector_belongs_to_a_test() {
    // Letters and the test files that use their vectors by name.
    let homes = [
        ("ABCD", "vectors_wire.rs"),
        ("N", "vectors_noise.rs"),
        ("W", "vectors_websocket.rs"),
        ("P", "vectors_proxy.rs"),
    ];
    let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut counts = BTreeMap::new();
    for (name, _) in names_and_vectors() {
        let letter = name.chars().next().unwrap();
        let Some((_, home)) = homes.iter().find(|(letters, _)| letters.contains(letter)) else {
            panic!("{name} belongs to no test file")
        };
        *counts.entry(letter).or_insert(0) += 1;
        // The letters of this file are counted by `Vectors::end`; the others must at least be named.
        if *home != "vectors_wire.rs" {
            let text = std::fs::read_to_string(tests.join(home))
                .unwrap_or_else(|error| panic!("{name} belongs to tests/{home}: {error}"));
            let number = name.split('_').next().unwrap();
            let named = text.contains(&format!("\"{number}_")) || text.contains(&format!("\"{number}\""));
            assert!(named, "{name} is not used in tests/{home}");
        }
    }
    let expected = [('A', 8), ('B', 11), ('C', 13), ('D', 4), ('N', 28), ('W', 9), ('P', 11)];
    assert_eq!(counts, BTreeMap::from(expected), "vectors of each letter");
}

/// A bare tag, both ways.
fn both<T: Copy + PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    vector: &Vector,
    decode: fn(&[u8; 4]) -> Result<T, E>,
    encode: fn(T) -> [u8; 4],
    value: T,
) {
    assert_eq!(decode(&vector.fixed()).unwrap(), value);
    assert_eq!(encode(value), vector.fixed());
    if let Some(variant) = vector.fields["variant"].as_str() {
        assert_eq!(format!("{value:?}"), variant);
    }
}

fn data_hello(vector: &Vector, key: SessionKey) {
    assert_eq!(Hello::Data(key).encode(), vector.fixed());
    let Opening::Data(given) = on_hello(&vector.fixed()).unwrap() else { panic!("not a data hello") };
    assert_eq!(given, key);
}

/// A UDP frame, both ways.
fn frame(vector: &Vector) {
    let ip = vector.text("ip").parse().unwrap();
    let visitor = SocketAddr::new(ip, vector.number("port").try_into().unwrap());
    let data = unhex(vector.text("data"));
    let header = Header { visitor, len: vector.number("data_len").try_into().unwrap() };
    assert_eq!(usize::from(header.len), data.len());

    let (bytes, used) = header.encode();
    assert_eq!([&bytes[..used], &data].concat(), vector.bytes, "{}", vector.fields);

    let (decoded, used) = Header::decode(&vector.bytes).unwrap().expect("a whole header");
    assert_eq!(decoded, header);
    assert_eq!(vector.bytes[used..], data);
    // However little of it has come: not an error, and never a shorter header.
    for end in 0..used {
        assert_eq!(Header::decode(&vector.bytes[..end]), Ok(None), "{end} bytes of {}", vector.fields);
    }
}
