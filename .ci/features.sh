#!/usr/bin/env bash
# Every feature builds alone, and every transport with every role; without a warning.
set -euo pipefail
cd "$(dirname "$0")/.."

# Straight from Cargo.toml, so that a new feature cannot be forgotten.
mapfile -t features < <(sed -n '/^\[features\]/,/^\[dependencies\]/s/^\([a-z][a-z0-9-]*\) *=.*/\1/p' Cargo.toml)
[ "${#features[@]}" -ge 5 ] || { echo "only ${#features[@]} features found in Cargo.toml"; exit 1; }

check() {
    echo "features: ${1:-none}"
    cargo clippy --locked --quiet --lib --bins --no-default-features --features "$1" -- -D warnings
}

check ""
for feature in "${features[@]}"; do
    [ "$feature" = default ] || check "$feature"
done
for roles in server client server,client; do
    check "$roles"
    for feature in "${features[@]}"; do
        case $feature in
            default | server | client) ;;
            *) check "$roles,$feature" ;;
        esac
    done
done
