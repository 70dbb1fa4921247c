#!/usr/bin/env bash
# The router build: at most 512,000 bytes, as a static musl binary, too, and less than 1 MB of memory when idle.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly BUDGET_BYTES=512000
readonly BUDGET_RSS_KB=1000
MUSL="$(uname -m)-unknown-linux-musl"
readonly MUSL
readonly TARGET=${CARGO_TARGET_DIR:-target}

work=$(mktemp -d)
client=
cleanup() {
    [ -z "$client" ] || kill "$client" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

build() {
    cargo build --locked --quiet --profile minimal --no-default-features --features client "$@"
}

weigh() {
    size=$(stat -c %s "$2")
    echo "$1: $size bytes of $BUDGET_BYTES"
    [ "$size" -le "$BUDGET_BYTES" ] || { echo "$1 is too big"; exit 1; }
}

build
weigh "minimal client, $(rustc -vV | sed -n 's/^host: //p')" "$TARGET/minimal/rathole"

if command -v rustup >/dev/null; then
    rustup --quiet target add "$MUSL"
fi
build --target "$MUSL"
weigh "minimal client, $MUSL" "$TARGET/$MUSL/minimal/rathole"

# Idle: nobody listens on the port, so it tries again and again.
cat >"$work/client.toml" <<'TOML'
[client]
remote_addr = "127.0.0.1:9"
default_token = "a-token-of-the-size-check-1f8c"
[client.services.ssh]
local_addr = "127.0.0.1:22"
TOML
chmod 600 "$work/client.toml"
# The shell makes the log when it starts the client, which may be after the first look.
: >"$work/log"
"$TARGET/$MUSL/minimal/rathole" client "$work/client.toml" </dev/null >"$work/log" 2>&1 &
client=$!
for _ in $(seq 100); do
    # It has begun when it has told of its first failed attempt.
    grep -q "127.0.0.1:9" "$work/log" && break
    kill -0 "$client" 2>/dev/null || break
    sleep 0.1
done
if ! grep -q "127.0.0.1:9" "$work/log" || ! kill -0 "$client" 2>/dev/null; then
    echo "the minimal client does not run:"
    cat "$work/log"
    exit 1
fi
rss=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$client/status")
echo "minimal client, $MUSL, idle: $rss kB resident of $BUDGET_RSS_KB"
[ "$rss" -lt "$BUDGET_RSS_KB" ] || { echo "that is too much"; exit 1; }

# What it has not got it says.
for missing in tls noise websocket; do
    printf '[client]\nremote_addr = "127.0.0.1:9"\ndefault_token = "a-token-of-the-size-check-1f8c"\n' >"$work/missing.toml"
    printf '[client.services]\n[client.transport]\ntype = "%s"\n' "$missing" >>"$work/missing.toml"
    printf '[client.transport.%s]\n' "$missing" >>"$work/missing.toml"
    [ "$missing" != websocket ] || echo 'tls = false' >>"$work/missing.toml"
    status=0
    "$TARGET/minimal/rathole" client "$work/missing.toml" 2>"$work/log" </dev/null || status=$?
    if [ "$status" -ne 78 ] || ! grep -qF "built without the feature \`$missing\`" "$work/log"; then
        echo "the minimal client with type = \"$missing\" ended with $status:"
        cat "$work/log"
        exit 1
    fi
done
