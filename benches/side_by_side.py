#!/usr/bin/env python3
"""Ours and rathole 0.5.0, side by side, on loopback: iperf3 throughput and processor time, memory of idle connections.

    cargo build --release
    cargo install rathole --version 0.5.0 --root target/peers
    python3 benches/side_by_side.py                # all of it, about two minutes
    python3 benches/side_by_side.py --seconds 10 --only noise

Needs iperf3 and openssl. Machines drift: only the ratio of two numbers of one run means anything. Rounds alternate
between the two, so that drift hits both. `cpu` is the processor time of server and client together for each GiB.
"""

import argparse
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOKEN = "a-token-for-the-benchmark-only-1"
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_open(port, deadline=10):
    end = time.monotonic() + deadline
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def certificates(directory):
    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench CA",
            "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
            "-keyout", "leaf.key", "-out", "leaf.csr")
    (directory / "ext").write_text("subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "ext", "-out", "leaf.pem")
    openssl("pkcs12", "-export", "-inkey", "leaf.key", "-in", "leaf.pem", "-certfile", "ca.pem",
            "-passout", "pass:1234", "-out", "leaf.p12")


def transports(directory, binary):
    keys = subprocess.run([binary, "--genkey"], check=True, capture_output=True, text=True).stdout.split("\n")
    private, public = keys[1], keys[4]
    tls_server = f'[server.transport.tls]\npkcs12 = "{directory}/leaf.p12"\npkcs12_password = "1234"\n'
    tls_client = f'[client.transport.tls]\ntrusted_root = "{directory}/ca.pem"\nhostname = "localhost"\n'
    return {
        "tcp": ("", ""),
        "tls": ('[server.transport]\ntype = "tls"\n' + tls_server, '[client.transport]\ntype = "tls"\n' + tls_client),
        "noise": (
            f'[server.transport]\ntype = "noise"\n[server.transport.noise]\nlocal_private_key = "{private}"\n',
            f'[client.transport]\ntype = "noise"\n[client.transport.noise]\nremote_public_key = "{public}"\n',
        ),
        "websocket": (
            '[server.transport]\ntype = "websocket"\n[server.transport.websocket]\ntls = false\n',
            '[client.transport]\ntype = "websocket"\n[client.transport.websocket]\ntls = false\n',
        ),
    }


class Tunnel:
    """A server and a client of one binary, in front of a local port."""

    def __init__(self, binary, directory, transport, local):
        self.visitors, control = free_port(), free_port()
        server = directory / f"server-{self.visitors}.toml"
        client = directory / f"client-{self.visitors}.toml"
        server.write_text(
            f'[server]\nbind_addr = "127.0.0.1:{control}"\ndefault_token = "{TOKEN}"\n'
            f'[server.services.bench]\nbind_addr = "127.0.0.1:{self.visitors}"\n' + transport[0])
        client.write_text(
            f'[client]\nremote_addr = "127.0.0.1:{control}"\ndefault_token = "{TOKEN}"\n'
            f'[client.services.bench]\nlocal_addr = "127.0.0.1:{local}"\n' + transport[1])
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "RUST_LOG": "error"}}
        self.server = subprocess.Popen([binary, "--server", server], **quiet)
        wait_open(control)
        self.client = subprocess.Popen([binary, "--client", client], **quiet)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.client, self.server):
            process.send_signal(signal.SIGINT)
            process.wait()

    def cpu(self):
        """Processor seconds of both so far."""
        total = 0
        for process in (self.server, self.client):
            fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory(self):
        """Resident bytes of server and client."""
        def rss(pid):
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
            raise RuntimeError("no VmRSS")

        return rss(self.server.pid), rss(self.client.pid)


def iperf(port, seconds, reverse):
    command = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", str(seconds), "-J"] + (["-R"] if reverse else [])
    for _ in range(50):
        report = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
        # The one before may not be quite over.
        if "busy" not in report.get("error", ""):
            break
        time.sleep(0.1)
    if "error" in report:
        raise RuntimeError(report["error"])
    received = report["end"]["sum_received"]
    return received["bits_per_second"] / 1e9, received["bytes"] / 2**30


def throughput(binaries, directory, ways, args):
    iperf_port = free_port()
    iperf_server = subprocess.Popen(["iperf3", "-s", "-p", str(iperf_port), "-B", "127.0.0.1"],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_open(iperf_port)
        time.sleep(0.5)
        direct = max(iperf(iperf_port, args.seconds, False)[0] for _ in range(2))
        print(f"direct loopback: {direct:.1f} Gbit/s\n")
        print(f"{'transport':10} {'':4} | {'ours Gbit/s':>11} {'0.5.0 Gbit/s':>12} {'ratio':>6} |"
              f" {'ours cpu s/GiB':>14} {'0.5.0 cpu s/GiB':>15} {'ratio':>6}")
        for name, transport in ways.items():
            for reverse in (False, True):
                best, cpu = {}, {}
                for _ in range(args.rounds):
                    for who, binary in binaries.items():
                        with Tunnel(binary, directory, transport, iperf_port) as tunnel:
                            settle(tunnel.visitors)
                            before = tunnel.cpu()
                            rate, gib = iperf(tunnel.visitors, args.seconds, reverse)
                            best[who] = max(best.get(who, 0), rate)
                            cpu[who] = min(cpu.get(who, 1e9), (tunnel.cpu() - before) / gib)
                print(f"{name:10} {'down' if reverse else 'up':4} | {best['ours']:11.2f} {best['0.5.0']:12.2f}"
                      f" {best['ours'] / best['0.5.0']:6.2f} | {cpu['ours']:14.2f} {cpu['0.5.0']:15.2f}"
                      f" {cpu['ours'] / cpu['0.5.0']:6.2f}", flush=True)
    finally:
        iperf_server.kill()
        iperf_server.wait()


def settle(port):
    """Waits until a visitor is really served: iperf3 answers only whole sessions."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        done = subprocess.run(["iperf3", "-c", "127.0.0.1", "-p", str(port), "-n", "1K"], capture_output=True)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError("the tunnel does not come up")


def idle(binaries, directory, ways, args):
    print(f"\nresident bytes for each idle connection, of {args.connections}, server / client")
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as local:
        for name, transport in ways.items():
            figures = {}
            for who, binary in binaries.items():
                with Tunnel(binary, directory, transport, local.getsockname()[1]) as tunnel:
                    pairs = [visit(tunnel.visitors, local)]
                    before = tunnel.memory()
                    pairs += [visit(tunnel.visitors, local) for _ in range(args.connections)]
                    time.sleep(1)
                    after = tunnel.memory()
                    figures[who] = [(b - a) / args.connections for a, b in zip(before, after)]
                    for pair in pairs:
                        for s in pair:
                            s.close()
            ours, peer = figures["ours"], figures["0.5.0"]
            print(f"{name:10} | ours {ours[0]:6.0f} / {ours[1]:6.0f} | 0.5.0 {peer[0]:6.0f} / {peer[1]:6.0f}"
                  f" | ratio {ours[0] / peer[0]:.2f} / {ours[1] / peer[1]:.2f}", flush=True)


def visit(port, local):
    """One connection through the tunnel that has carried a message each way."""
    end = time.monotonic() + 15
    while True:
        visitor = socket.socket()
        visitor.settimeout(5)
        local.settimeout(5)
        try:
            visitor.connect(("127.0.0.1", port))
            visitor.sendall(b"ping")
            service, _ = local.accept()
            service.settimeout(5)
            assert service.recv(4) == b"ping"
            service.sendall(b"pong")
            assert visitor.recv(4) == b"pong"
            return visitor, service
        except (OSError, AssertionError):
            visitor.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default=ROOT / "target/release/rathole")
    parser.add_argument("--peer", default=ROOT / "target/peers/bin/rathole")
    parser.add_argument("--seconds", type=int, default=3, help="of each iperf3 run")
    parser.add_argument("--rounds", type=int, default=2, help="the best counts")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--only", action="append", help="a transport; may be repeated")
    parser.add_argument("--skip", choices=["throughput", "idle"])
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    binaries = {"ours": args.ours, "0.5.0": args.peer}
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary)
        certificates(directory)
        ways = transports(directory, args.ours)
        ways = {name: way for name, way in ways.items() if not args.only or name in args.only}
        if not ways:
            sys.exit("no such transport")
        if args.skip != "throughput":
            throughput(binaries, directory, ways, args)
        if args.skip != "idle":
            idle(binaries, directory, ways, args)


if __name__ == "__main__":
    main()
