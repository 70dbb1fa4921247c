//! Golden vectors W1 to W9: the upgrade and the frames of rathole 0.5, decoded by the side that receives them and
//! encoded where ours sends them, with the recorded keys.
#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used)]

use rathole::transport::websocket::frame::{Decoder, Kind, MAX_HEADER, header};
use rathole::transport::websocket::{mask, upgrade};
use serde_json::Value;

fn vector(name: &str) -> Value {
    let file: Value = serde_json::from_str(include_str!("protocol-v1-vectors.json")).unwrap();
    let all = file["vectors"].as_array().unwrap();
    assert_eq!(all.iter().filter(|vector| vector["transport"] == "websocket").count(), 9);
    all.iter().find(|vector| vector["name"] == name).unwrap_or_else(|| panic!("no vector {name}")).clone()
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    assert!(text.len() % 2 == 0);
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn encode(payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mut head = [0; MAX_HEADER];
    let len = header(Kind::Binary, payload.len(), key, &mut head);
    let mut masked = vec![0; payload.len()];
    mask::copy(payload, &mut masked, key.unwrap_or_default());
    [&head[..len], &masked].concat()
}

/// elP62XiGxSOeGbJwweuq6w== as bytes.
const W1_KEY: [u8; 16] = [122, 83, 250, 217, 120, 134, 197, 35, 158, 25, 178, 112, 193, 235, 170, 235];

/// Our documented difference: one more header, which rathole 0.5 ignores.
#[test]
fn w1_request_with_our_offer() {
    let recorded = hex(&vector("W1_upgrade_request")["hex"]);
    let recorded = String::from_utf8(recorded).unwrap();
    let end = recorded.strip_suffix("\r\n").unwrap();
    let ours = upgrade::request("localhost:42493", W1_KEY);
    assert_eq!(ours, format!("{end}Sec-WebSocket-Protocol: rathole-halfclose\r\n\r\n"));

    let accepted = upgrade::check_request(recorded.as_bytes()).unwrap();
    assert_eq!((accepted.key.as_str(), accepted.half_close), ("elP62XiGxSOeGbJwweuq6w==", false));
    assert!(upgrade::check_request(ours.as_bytes()).unwrap().half_close);
}

#[test]
fn w2_and_w6_responses() {
    let recorded = hex(&vector("W2_upgrade_response")["hex"]);
    let w1 = hex(&vector("W1_upgrade_request")["hex"]);
    let ours = upgrade::response(&upgrade::check_request(&w1).unwrap());
    assert_eq!(ours.as_bytes(), recorded);
    assert_eq!(upgrade::check_response(&recorded, W1_KEY), Ok(false));

    let w6 = vector("W6_upgrade_response_from_upstream");
    assert_eq!(w6["fields"]["request_key"], "AAAAAAAAAAAAAAAAAAAAAA==");
    assert_eq!(upgrade::check_response(&hex(&w6["hex"]), [0; 16]), Ok(false));
    assert!(upgrade::check_response(&hex(&w6["hex"]), W1_KEY).is_err());
}

#[test]
fn frames() {
    let mut count = 0;
    for name in [
        "W3_control_hello",
        "W4_control_hello_server",
        "W5_auth",
        "W7_control_hello_masked",
        "W8_control_hello_from_server",
        "W9_ack",
    ] {
        let vector = vector(name);
        let (bytes, payload) = (hex(&vector["hex"]), hex(&vector["fields"]["payload"]));
        let from_client = vector["direction"] == "client->server";
        let key = from_client.then(|| bytes[2..6].try_into().unwrap());
        if name.starts_with("W7") {
            assert_eq!(key, Some([1, 2, 3, 4]));
        }
        assert_eq!(encode(&payload, key), bytes, "{name}");

        let mut decoder = Decoder::new(from_client, false);
        let mut decoded = bytes.clone();
        assert_eq!(decoder.decode(&mut decoded), (payload.len(), None), "{name}");
        assert_eq!(decoded[..payload.len()], payload, "{name}");
        assert!(decoder.is_between() && decoder.end().is_none());
        // The other side may not send it.
        assert!(Decoder::new(!from_client, false).decode(&mut bytes.clone()).1.is_some(), "{name}");
        count += 1;
    }
    assert_eq!(count, 6);
}
