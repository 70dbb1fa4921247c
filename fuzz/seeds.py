#!/usr/bin/env python3
"""Writes fuzz/seeds/TARGET/* and fuzz/dict/TARGET from the golden vectors, the examples and the configuration's schema.

    python3 fuzz/seeds.py

What is there already stays: an input that once failed is kept under a name of its own (and `cargo test` runs it).
How a target reads its bytes stands in its source: src/fuzzing/, and the files fuzzing.rs beside the code.
"""

import json
import pathlib
import re
import ssl
import struct

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEEDS = ROOT / "fuzz/seeds"
VECTORS = {v["name"]: v for v in json.loads((ROOT / "tests/protocol-v1-vectors.json").read_text())["vectors"]}


def golden(name):
    return bytes.fromhex(VECTORS[name]["hex"])


def seed(target, name, content):
    path = SEEDS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def some(content):
    """What `Input::some` and `Input::cuts` read."""
    return bytes([len(content)]) + content


def word(number):
    return struct.pack(">H", number)


NO_CUTS = some(b"")
CUTS = some(bytes([1, 2, 3, 30, 1]))


def wire():
    for name, vector in VECTORS.items():
        if name[0] in "ABCD" and vector["direction"] != "-":
            seed("wire", name, golden(name))
    # Two ends that meet: flip, name, both tokens, known, nonce.
    seed("wire", "meeting", b"\xff\0" + some(b"ssh") + some(b"token") + some(b"token") + b"\1" + bytes(range(32)))
    seed("wire", "meeting_flipped", b"\3\1" + some(b"ssh") + some(b"t") + some(b"t") + b"\1" + bytes(32))


def udp():
    frames = [golden(name) for name in VECTORS if "_udp_frame_" in name]
    seed("udp_frames", "all", NO_CUTS + b"".join(frames))
    seed("udp_frames", "all_cut", CUTS + b"".join(frames))
    seed("udp_frames", "half", NO_CUTS + frames[0] + frames[1][:9])
    seed("udp_frames", "long_header", NO_CUTS + b"\x10" + frames[0][1:13] + b"more" + b"hello")
    seed("udp_frames", "family", CUTS + b"\x0c\2" + frames[0][2:])
    push = lambda who, length: bytes([who]) + word(length)
    seed("udp_outbox", "some", push(64, 5) + push(65, 0) + b"\1" + push(66, 1500) + b"\x3f")
    seed("udp_outbox", "flood", push(64, 60000) * 20 + push(65, 1) + b"\2" + push(64, 60000))
    seed("udp_outbox", "too_long", push(70, 65508) + push(71, 65507) + b"\0\1\2")


def noise():
    patterns = {"NK": 0, "KK": 1, "XX": 2}
    for run, pattern in [("N1_NK", "NK"), ("N3_KK", "KK"), ("N4_XX", "XX")]:
        server = [f"{run}_vs_upstream_server_{what}" for what in ("hs2_responder", "hello_server", "ack")]
        client = [f"{run}_vs_upstream_server_{what}" for what in ("hs1_initiator", "hs3_initiator", "hello_client", "auth")]
        for side, names in [(0, server), (1, client)]:
            said = b"".join(golden(name) for name in names if name in VECTORS)
            how = bytes([patterns[pattern] << 1 | side])
            seed("noise_handshake", f"{run}_{side}", how + NO_CUTS + said)
            seed("noise_handshake", f"{run}_{side}_cut", how + CUTS + said)
    seed("noise_handshake", "tls_hello", b"\1" + NO_CUTS + b"\x16\x03\x01\x02\x00" + bytes(100))
    seed("noise_handshake", "zero_key", b"\1" + NO_CUTS + b"\x30\0" + bytes(48))
    plain = lambda what, length, room: bytes([what]) + word(length) + word(room)
    for how in (0, 1):
        head = bytes([how]) + word(500)
        orderly = plain(5, 100, 100) + b"\x81\x05" + plain(6, 40000, 30000) + b"\x82\x00"
        seed("noise_records", f"orderly_{how}", head + CUTS + orderly)
        seed("noise_records", f"junk_{how}", head + CUTS + orderly + b"\xa0" + some(b"junk") + orderly)
        seed("noise_records", f"flipped_{how}", head + NO_CUTS + orderly + b"\xc0" + word(20000) + orderly)
        seed("noise_records", f"replayed_{how}", head + NO_CUTS + orderly + b"\xe0" + word(23))
        seed("noise_records", f"empty_{how}", head + NO_CUTS + b"\xa0" + some(b"\0\0"))


def client_hello():
    """As OpenSSL makes it. Random, so it is only made if there is none."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="server.test")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


def tls():
    if not (SEEDS / "tls_handshake/client_hello").exists():
        seed("tls_handshake", "client_hello", b"\1" + NO_CUTS + client_hello())
    hello = (SEEDS / "tls_handshake/client_hello").read_bytes()[2:]
    seed("tls_handshake", "client_hello_cut", b"\1" + CUTS + hello)
    # The hello in two records.
    parts = b"".join(b"\x16\x03\x01" + word(len(part)) + part for part in (hello[5:40], hello[40:]))
    seed("tls_handshake", "client_hello_split", b"\1" + NO_CUTS + parts)
    seed("tls_handshake", "http", b"\1" + NO_CUTS + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    seed("tls_handshake", "alert", b"\0" + NO_CUTS + b"\x15\x03\x03\0\2\2\x28")
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\xc0\x2f" + b"\0" + word(0)
    server_hello = b"\2" + struct.pack(">I", len(body))[1:] + body
    seed("tls_handshake", "server_hello_1_2", b"\0" + NO_CUTS + b"\x16\x03\x03" + word(len(server_hello)) + server_hello)
    retry = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    extensions = b"\0\x2b\0\2\3\4" + b"\0\x33\0\2\0\x1d"
    body = b"\x03\x03" + retry + b"\0" + b"\x13\x01" + b"\0" + word(len(extensions)) + extensions
    hello_retry = b"\2" + struct.pack(">I", len(body))[1:] + body
    seed("tls_handshake", "hello_retry", b"\0" + CUTS + b"\x16\x03\x03" + word(len(hello_retry)) + hello_retry)

    data = lambda what, length, padding=0: bytes([what]) + word(length) + bytes([padding])
    for how in range(16):
        head = bytes([how]) + word(100 if how & 1 else 0) + CUTS
        orderly = data(5, 100) + data(6, 0) + data(7, 16384) + data(8, 300, 40)
        seed("tls_records", f"orderly_{how}", head + orderly)
        seed("tls_records", f"close_{how}", head + orderly + b"\xa0" + some(b"\1\0") + data(9, 5))
        seed("tls_records", f"junk_{how}", head + orderly + b"\xc0" + some(b"\x17\x03\x03\0\x20") + orderly)
    for how in (0, 4):
        head = bytes([how]) + word(0) + NO_CUTS
        seed("tls_records", f"key_update_{how}", head + data(1, 9) + b"\x60" + data(2, 9) + b"\x61" + data(3, 9))
        seed("tls_records", f"ticket_{how}", head + data(1, 9) + b"\x80" + some(bytes(40)) + data(2, 9))
        seed("tls_records", f"fragments_{how}", head + b"\x90" + some(b"\x18\0") + b"\x90" + some(b"\0\1\1"))
        seed("tls_records", f"replayed_{how}", head + data(1, 9) + b"\xe0" + word(31))


def websocket():
    request, response = golden("W1_upgrade_request"), golden("W6_upgrade_response_from_upstream")
    from_client = golden("W3_control_hello") + golden("W5_auth") + golden("W7_control_hello_masked")
    from_server = golden("W4_control_hello_server") + golden("W9_ack")
    for name, cuts in [("", NO_CUTS), ("_cut", CUTS)]:
        seed("websocket_upgrade", f"request{name}", b"\1" + cuts + request + from_client)
        # The answer to the target's key.
        accept = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        good = re.sub(rb"(?i)(sec-websocket-accept: ).*", lambda m: m[1] + accept + b"\r", response)
        seed("websocket_upgrade", f"response{name}", b"\0" + cuts + good + from_server)
        ours = good.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: rathole-halfclose\r\n\r\n")
        seed("websocket_upgrade", f"response_ours{name}", b"\0" + cuts + ours + from_server)
    ours = request.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: rathole-halfclose\r\n\r\n")
    seed("websocket_upgrade", "request_ours", b"\1" + NO_CUTS + ours + from_client)
    seed("websocket_upgrade", "bad_gateway", b"\0" + NO_CUTS + b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>")
    seed("websocket_upgrade", "long", b"\1" + NO_CUTS + b"GET / HTTP/1.1\r\nX: " + b"x" * 9000)

    head = lambda how, early=0, room=200: bytes([how]) + word(early) + word(room)
    for half in (0, 2):
        seed("websocket_frames", f"from_client_{half}", head(half, 10) + CUTS + from_client)
        seed("websocket_frames", f"from_server_{half}", head(1 | half) + NO_CUTS + from_server)
        for side in (0, 1):
            plan = b"\x82\5\0" + b"\2\5\0\0\3\0\x80\0\0" + b"\x89\4\0" + b"\xa2" + word(70000 % 65536) + b"\0"
            how = 4 | half | side
            seed("websocket_frames", f"built_{how}", head(how) + CUTS + plan + b"\x88\2\0")
            seed("websocket_frames", f"empty_{how}", head(how) + CUTS + plan + b"\x82\0\0" + b"\x89\1\0")
            seed("websocket_frames", f"wrong_mask_{how}", head(how) + CUTS + b"\x82\5\xff")
            seed("websocket_frames", f"ping_in_message_{how}", head(how) + NO_CUTS + b"\2\7\0\x89\2\0\x80\1\0")
    seed("websocket_frames", "huge", head(1) + NO_CUTS + b"\x82\x7f" + b"\0\0\0\0\1\0\0\1")


def proxy():
    http = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\ntunnel"
    seed("proxy_replies", "http", b"\0" + NO_CUTS + http)
    seed("proxy_replies", "http_cut", b"\2" + CUTS + http)
    seed("proxy_replies", "http_407", b"\0" + NO_CUTS + b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
    seed("proxy_replies", "http_long", b"\0" + NO_CUTS + b"HTTP/1.1 200 OK\r\nX: " + b"x" * 5000)
    replies = {
        "v4": b"\5\0\0\1\1\2\3\4\5\6tunnel",
        "v6": b"\5\0\0\4" + bytes(18) + b"tunnel",
        "name": b"\5\0\0\3" + some(b"proxy.test") + b"\0\1tunnel",
        "refused": b"\5\5\0\1",
    }
    for name, reply in replies.items():
        seed("proxy_replies", f"socks5_{name}", b"\1" + NO_CUTS + b"\5\0" + reply)
        seed("proxy_replies", f"socks5_login_{name}", b"\3" + CUTS + b"\5\2\1\0" + reply)


def config():
    for path in sorted((ROOT / "examples").glob("*/*.toml")):
        content = path.read_bytes()
        seed("config", "example_" + "_".join(path.parts[-2:]), content)
    overlay = b'[server]\nbind_addr = "[::]:2333"\n[server.services.a]\nbind_addr = "0.0.0.0:1"\n'
    overlay += b'=== over1.toml\n[server]\ndefault_token = "of-the-overlay"\n'
    overlay += b'=== over2.toml\n[server.services.a]\ntype = "udp"\n[server.services."b\\n\xc3\xa9"]\nbind_addr = "[::1]:1"\n'
    seed("config", "overlays", overlay)
    files = b'[client]\nremote_addr = "a.test:1"\ndefault_token_file = "token"\n[client.services.a]\nlocal_addr = ":1"\n'
    files += b"=== token\nof-the-file\n"
    seed("config", "token_file", files)
    seed("config", "not_utf8", b'[server]\nbind_addr = "\xff:1"\n')
    seed("config", "broken", b'[server\nbind_addr = \nx = 1979-05-27\n[[a]]\n')

    fragments = b'[server]\nbind_addr = "[::]:2333"\ndefault_token = "of-the-main-file"\n[server.services]\n'
    fragments += b'=== rathole.toml.d/a.toml\n[server.services.a]\nbind_addr = "0.0.0.0:1"\n'
    fragments += b'=== rathole.toml.d/b.toml\n[server.services.b]\nbind_addr = "0.0.0.0:2"\ntype = "udp"\n'
    seed("config", "fragments", fragments)
    seed("config", "fragments_clash", fragments + b'[server.services.a]\nbind_addr = "0.0.0.0:3"\n')
    seed("config_diff", "fragments", fragments + b"=== then.toml\n" + fragments)

    # Every key with a value of its kind.
    schema = json.loads((ROOT / "docs/rathole.schema.json").read_text())
    words = set()

    def table(schema, path, lines):
        lines.append(f"[{path}]")
        inner = []
        for name, key in schema.get("properties", {}).items():
            words.add(name)
            words.update(key.get("enum", []))
            if key["type"] == "object":
                inner.append((f"{path}.{name}", key))
            elif key["type"] == "integer":
                lines.append(f"{name} = 7")
            elif key["type"] == "boolean":
                lines.append(f"{name} = true")
            elif key["type"] == "array":
                lines.append(f'{name} = ["10.0.0.0/8"]')
            else:
                lines.append(f'{name} = {json.dumps(key.get("enum", ["127.0.0.1:1"])[0])}')
        if isinstance(schema.get("additionalProperties"), dict):
            inner.append((f"{path}.a", schema["additionalProperties"]))
        for path, key in inner:
            table(key, path, lines)

    for half, key in schema["properties"].items():
        lines = []
        table(key, half, lines)
        seed("config", f"every_key_{half}", "\n".join(lines).encode() + b"\n")
        # What can be loaded, and each of its numbers and texts another way.
        minimal = "".join(
            f"{line}\n"
            for line in lines[: lines.index(f"[{half}.transport]")]
            if not re.match(r"default_token_file|on_duplicate", line)
        ).replace("default_token = ", "default_token = \"long-enough-for-it\" #")
        service = {"server": 'bind_addr = "127.0.0.1:2"', "client": 'local_addr = "127.0.0.1:2"'}[half]
        before = f"{minimal}[{half}.services.a]\n{service}\n[{half}.services.b]\n{service.replace(':2', ':3')}\n"
        after = before.replace(" = 7", " = 8").replace("services.b", "services.c").replace(":2\"", ":4\"")
        seed("config_diff", f"{half}", f"{before}=== then.toml\n{after}".encode())
        seed("config_diff", f"{half}_same", f"{before}=== then.toml\n{before}".encode())
        for n, line in enumerate(after.splitlines()):
            if " = 8" in line:
                one = before.replace(line.replace(" = 8", " = 7"), line)
                seed("config_diff", f"{half}_{line.split()[0]}", f"{before}=== then.toml\n{one}".encode())
    words |= {"=== over.toml", "=== then.toml", "=== rathole.toml.d/b.toml", "9223372036854775807", '"""', "[[", "socks5://u:p@h:1", "http://h", "[::1]:1"}
    dictionaries = [ROOT / "fuzz/dict" / target for target in ("config", "config_diff")]
    dictionaries[0].parent.mkdir(parents=True, exist_ok=True)
    escaped = (word.replace("\\", "\\\\").replace('"', '\\"') for word in sorted(words))
    text = "".join(f'"{word}"\n' for word in escaped)
    for dictionary in dictionaries:
        dictionary.write_text(text)


for make in (wire, udp, noise, tls, websocket, proxy, config):
    make()
