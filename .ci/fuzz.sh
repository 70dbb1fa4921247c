#!/usr/bin/env bash
# Every fuzz target for a while, two at a time: `.ci/fuzz.sh [SECONDS [TARGET...]]`, 20 seconds each if nothing is said.
# Says how many inputs each took; a crash is a failure, and its input is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly SECONDS_EACH=${1:-20}
shift $(($# > 0))
readonly WANTED=("$@")
readonly TOOLCHAIN=${FUZZ_TOOLCHAIN:-nightly}

# What is installed is not updated: that would build everything anew.
if ! rustup run "$TOOLCHAIN" rustc --version 2>/dev/null &&
    ! rustup toolchain install "$TOOLCHAIN" --profile minimal; then
    echo "Rust $TOOLCHAIN cannot be installed here: nothing is fuzzed"
    [ -z "${RATHOLE_REQUIRE_ALL:-}" ]
    exit
fi
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

# Without a sanitizer: there is no unsafe code to be found out, and it halves the build.
cargo "+$TOOLCHAIN" fuzz build --sanitizer none
triple=$(rustc -vV | sed -n 's/^host: //p')
readonly BINARIES=fuzz/target/$triple/release

mapfile -t targets < <(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//')
[ "${#targets[@]}" -ge 10 ] || { echo "only ${#targets[@]} targets"; exit 1; }
[ "${#WANTED[@]}" -eq 0 ] || targets=("${WANTED[@]}")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# New inputs go to fuzz/corpus, which is not committed, so that a longer run goes on where the last one ended.
fuzz() {
    local target=$1 dictionary=()
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    [ ! -f "fuzz/dict/$target" ] || dictionary=("-dict=fuzz/dict/$target")
    timeout $((SECONDS_EACH * 3 + 120)) "$BINARIES/$target" \
        -max_total_time="$SECONDS_EACH" -timeout=20 -rss_limit_mb=1024 -max_len=16384 -print_final_stats=1 \
        -artifact_prefix="fuzz/artifacts/$target/" "${dictionary[@]}" \
        "fuzz/corpus/$target" "fuzz/seeds/$target" >"$work/$target.log" 2>&1 && echo ok >"$work/$target.done"
}

for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do
        wait -n || true
    done
    fuzz "$target" &
done
wait || true

total=0
crashed=()
for target in "${targets[@]}"; do
    inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")
    cover=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/$target.log" | tail -1)
    if [ -f "$work/$target.done" ] && [ "${inputs:-0}" -gt 0 ]; then
        printf '%-20s %9d inputs, %5d edges\n' "$target" "$inputs" "${cover:-0}"
        total=$((total + inputs))
    else
        crashed+=("$target")
        printf '%-20s FAILED\n' "$target"
        tail -n 40 "$work/$target.log"
    fi
done
echo "$total inputs in ${#targets[@]} targets, ${#crashed[@]} crashes"
[ "${#crashed[@]}" -eq 0 ]
