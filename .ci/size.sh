#!/bin/sh
# The minimal client for routers: prints its size with glibc and with static musl, fails if one is too large.
set -eu
cd "$(dirname "$0")/.."
limit=512000
target=${CARGO_TARGET_DIR:-target}
arch=$(uname -m)
status=0
for triple in "$arch-unknown-linux-gnu" "$arch-unknown-linux-musl"; do
    if command -v rustup >/dev/null; then rustup target add "$triple" >/dev/null 2>&1 || true; fi
    cargo build --quiet --profile minimal --no-default-features --features client --target "$triple"
    size=$(stat -c %s "$target/$triple/minimal/rathole")
    if [ "$size" -le "$limit" ]; then verdict=ok; else verdict="too large" status=1; fi
    echo "minimal client, $triple: $size bytes of at most $limit: $verdict"
done
exit $status
