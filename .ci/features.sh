#!/usr/bin/env bash
# Every feature builds alone; every feature with every role builds without a warning.
set -euo pipefail
cd "$(dirname "$0")/.."

# Straight from Cargo.toml, so that a new feature cannot be forgotten.
mapfile -t features < <(sed -n '/^\[features\]/,/^\[dependencies\]/s/^\([a-z][a-z0-9-]*\) *=.*/\1/p' Cargo.toml)
[ "${#features[@]}" -ge 5 ] || { echo "only ${#features[@]} features found in Cargo.toml"; exit 1; }

failed=()

# A build without a role is of no use to anyone, so what it leaves unused may be warned of.
builds() {
    echo "features: ${1:-none}"
    cargo check --locked --quiet --lib --bins --no-default-features --features "$1" 2>&1 |
        grep -A9 '^error' || [ "${PIPESTATUS[0]}" -eq 0 ] || failed+=("${1:-none}")
}

is_clean() {
    echo "features: $1"
    cargo clippy --locked --quiet --lib --bins --no-default-features --features "$1" -- -D warnings ||
        failed+=("$1")
}

builds ""
for feature in "${features[@]}"; do
    case $feature in
        default | server | client) ;;
        *) builds "$feature" ;;
    esac
done
for roles in server client server,client; do
    is_clean "$roles"
    for feature in "${features[@]}"; do
        case $feature in
            default | server | client) ;;
            *) is_clean "$roles,$feature" ;;
        esac
    done
done

if [ "${#failed[@]}" -gt 0 ]; then
    printf 'does not build cleanly: %s\n' "${failed[@]}"
    exit 1
fi
