//! Golden vectors N1 to N4: recorded handshakes and records of rathole 0.5, decoded by the side that receives
//! them and encoded where ours sends them, with the recorded ephemeral key.
#![cfg(feature = "noise")]
#![allow(clippy::unwrap_used)]

use rathole::config::{Noise, Secret};
use rathole::transport::noise::session::{Cipher, Session};
use rathole::transport::noise::{Acceptor, Connector, Stream, public_key};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Vectors(Vec<Value>);

impl Vectors {
    fn load() -> Self {
        let file: Value = serde_json::from_str(include_str!("protocol-v1-vectors.json")).unwrap();
        let all = file["vectors"].as_array().unwrap().iter();
        let noise: Vec<_> = all.filter(|vector| vector["transport"] == "noise").cloned().collect();
        assert_eq!(noise.len(), 28);
        Vectors(noise)
    }

    fn get(&self, name: &str) -> &Value {
        self.0.iter().find(|vector| vector["name"] == name).unwrap_or_else(|| panic!("no vector {name}"))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        hex(&self.get(name)["hex"])
    }

    fn plaintext(&self, name: &str) -> Vec<u8> {
        hex(&self.get(name)["fields"]["plaintext"])
    }

    /// Keys and ephemerals of a recorded session.
    fn secret(&self, name: &str, field: &str) -> [u8; 32] {
        hex(&self.get(name)["fields"][field]).try_into().unwrap()
    }
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    assert!(text.len() % 2 == 0);
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (one, listener.accept().await.unwrap().0)
}

async fn expect(raw: &mut TcpStream, vectors: &Vectors, name: &str) {
    let expected = vectors.bytes(name);
    let mut got = vec![0; expected.len()];
    raw.read_exact(&mut got).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(got, expected, "{name}");
}

async fn assert_reads(stream: &mut Stream, vectors: &Vectors, name: &str) {
    let expected = vectors.plaintext(name);
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, expected, "{name}");
}

fn settings(pattern: &str, private: Option<[u8; 32]>, pin: Option<[u8; 32]>) -> Noise {
    Noise {
        pattern: format!("Noise_{pattern}_25519_ChaChaPoly_BLAKE2s"),
        local_private_key: private.map(|key| Secret::new(key.to_vec())),
        remote_public_key: pin,
    }
}

/// What the server of N4 really sent as its key: it had made one of its own, not the one in N4's secrets.
const N4_SERVER_KEY: &str = "35ac6a70f0193046172e0506b49e34d5906fbec40325c364a74c31ff566c5d29";

/// N1, N3, N4: our client writes byte for byte what was recorded, and reads what the 0.5 server answered.
#[tokio::test]
async fn our_initiator_against_the_recorded_server() {
    let vectors = Vectors::load();
    for (session, pattern, third) in [("N1_NK", "NK", false), ("N3_KK", "KK", false), ("N4_XX", "XX", true)] {
        let name = |part: &str| format!("{session}_vs_upstream_server_{part}");
        let secret = |field: &str| vectors.secret(&name("secrets"), field);
        let client_key = (pattern != "NK").then(|| secret("client_static_private"));
        let pin = if third {
            hex(&N4_SERVER_KEY.into()).try_into().unwrap()
        } else {
            secret("server_static_public")
        };
        let connector = Connector::new(&settings(pattern, client_key, Some(pin))).unwrap();
        let connector = connector.with_fixed_ephemeral(secret("initiator_ephemeral_private"));

        let (ours, mut peer) = sockets().await;
        let server = async {
            expect(&mut peer, &vectors, &name("hs1_initiator")).await;
            peer.write_all(&vectors.bytes(&name("hs2_responder"))).await.unwrap();
            if third {
                expect(&mut peer, &vectors, &name("hs3_initiator")).await;
            }
            peer
        };
        let (client, mut peer) = tokio::join!(connector.connect(ours), server);
        let mut client = client.unwrap();

        client.write_all(&vectors.plaintext(&name("hello_client"))).await.unwrap();
        expect(&mut peer, &vectors, &name("hello_client")).await;
        peer.write_all(&vectors.bytes(&name("hello_server"))).await.unwrap();
        assert_reads(&mut client, &vectors, &name("hello_server")).await;
        client.write_all(&vectors.plaintext(&name("auth"))).await.unwrap();
        expect(&mut peer, &vectors, &name("auth")).await;
        peer.write_all(&vectors.bytes(&name("ack"))).await.unwrap();
        assert_reads(&mut client, &vectors, &name("ack")).await;
    }
}

/// N4 once more, with the key in its secrets as the pin: rathole 0.5 did not compare, ours does.
#[tokio::test]
async fn a_key_that_is_not_the_pinned_one_is_refused() {
    let vectors = Vectors::load();
    let name = |part: &str| format!("N4_XX_vs_upstream_server_{part}");
    let secret = |field: &str| vectors.secret(&name("secrets"), field);
    let settings =
        settings("XX", Some(secret("client_static_private")), Some(secret("server_static_public")));
    let connector = Connector::new(&settings).unwrap();
    let connector = connector.with_fixed_ephemeral(secret("initiator_ephemeral_private"));
    let (ours, mut peer) = sockets().await;
    let server = async {
        expect(&mut peer, &vectors, &name("hs1_initiator")).await;
        peer.write_all(&vectors.bytes(&name("hs2_responder"))).await.unwrap();
        // Our own key is not shown to a stranger.
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    };
    let (client, ()) = tokio::join!(connector.connect(ours), server);
    assert_eq!(client.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
}

/// N2: our server against what a 0.5 client sent.
#[tokio::test]
async fn our_responder_against_the_recorded_client() {
    let vectors = Vectors::load();
    let name = |part: &str| format!("N2_NK_vs_upstream_client_{part}");
    let secret = |field: &str| vectors.secret("N2_secrets", field);
    let acceptor = Acceptor::new(&settings("NK", Some(secret("server_static_private")), None)).unwrap();
    let acceptor = acceptor.with_fixed_ephemeral(secret("responder_ephemeral_private"));

    let (mut peer, ours) = sockets().await;
    let client = async {
        peer.write_all(&vectors.bytes(&name("hs1_initiator"))).await.unwrap();
        expect(&mut peer, &vectors, &name("hs2_responder")).await;
        peer
    };
    let (server, mut peer) = tokio::join!(acceptor.accept(ours), client);
    let mut server = server.unwrap();
    // Hello and Auth may come together.
    let both = [vectors.bytes(&name("hello_client")), vectors.bytes(&name("auth"))].concat();
    peer.write_all(&both).await.unwrap();
    assert_reads(&mut server, &vectors, &name("hello_client")).await;
    server.write_all(&vectors.plaintext(&name("hello_server"))).await.unwrap();
    expect(&mut peer, &vectors, &name("hello_server")).await;
    assert_reads(&mut server, &vectors, &name("auth")).await;
}

/// Each recorded first message is one that our server answers.
#[tokio::test]
async fn our_responder_takes_every_first_message() {
    let vectors = Vectors::load();
    for (session, pattern, answer) in [("N1_NK", "NK", 50), ("N3_KK", "KK", 50), ("N4_XX", "XX", 98)] {
        let name = |part: &str| format!("{session}_vs_upstream_server_{part}");
        let key = vectors.secret(&name("secrets"), "server_static_private");
        let pin = public_key(&[0x22; 32]).filter(|_| pattern != "NK");
        let acceptor = Acceptor::new(&settings(pattern, Some(key), pin)).unwrap();
        let (mut peer, ours) = sockets().await;
        let client = async {
            peer.write_all(&vectors.bytes(&name("hs1_initiator"))).await.unwrap();
            peer.read_exact(&mut vec![0; answer]).await.unwrap();
            drop(peer);
        };
        let (server, ()) = tokio::join!(acceptor.accept(ours), client);
        // XX has a third message.
        assert_eq!(server.is_ok(), pattern != "XX", "{session}");
    }
}

/// Both ends of each recorded session, from its keys: each side reads what the other sent, and our server writes
/// what the 0.5 server wrote. This is also how a parked session is taken up again.
#[tokio::test]
async fn sessions_from_recorded_keys() {
    let vectors = Vectors::load();
    let mut count = 0;
    for session in ["N1_NK_vs_upstream_server", "N3_KK_vs_upstream_server", "N4_XX_vs_upstream_server", "N2"]
    {
        let secrets = format!("{session}_secrets");
        let (up, down) = (vectors.secret(&secrets, "i2r_key"), vectors.secret(&secrets, "r2i_key"));
        let prefix = if session == "N2" { "N2_NK_vs_upstream_client" } else { session };
        for (part, from_client) in
            [("hello_client", true), ("hello_server", false), ("auth", true), ("ack", false)]
        {
            let name = format!("{prefix}_{part}");
            if name == "N2_NK_vs_upstream_client_ack" {
                continue; // not recorded
            }
            let nonce = vectors.get(&name)["fields"]["nonce"].as_u64().unwrap();
            let (to, from) = sockets().await;
            let (send, receive) = if from_client { (up, down) } else { (down, up) };
            let sender = Session::new(Cipher::ChaChaPoly, send, receive).at(nonce, 0);
            let receiver = Session::new(Cipher::ChaChaPoly, receive, send).at(0, nonce);
            let mut sender = Stream::resume(to, sender);
            let mut raw = from;
            sender.write_all(&vectors.plaintext(&name)).await.unwrap();
            expect(&mut raw, &vectors, &name).await;
            // And back in by the same wire.
            let (mut to, from) = sockets().await;
            to.write_all(&vectors.bytes(&name)).await.unwrap();
            assert_reads(&mut Stream::resume(from, receiver), &vectors, &name).await;
            count += 1;
        }
    }
    assert_eq!(count, 15);
}

#[test]
fn recorded_key_pairs_fit() {
    let vectors = Vectors::load();
    let private = vectors.secret("N1_NK_vs_upstream_server_secrets", "server_static_private");
    let public = vectors.secret("N1_NK_vs_upstream_server_secrets", "server_static_public");
    assert_eq!(public_key(&private), Some(public));
}
