#!/usr/bin/env bash
# Builds the kernels with the compiler's sanitizers, without Python, and drives them (kernels.cpp):
#
#   tests/native/sanitize.sh [FOLDER]     where objects go; a temporary folder if not named
#
# Ends with the first finding's exit code.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$(mktemp -d)}
if [[ $# == 0 ]]; then trap 'rm -rf "$build"' EXIT; fi
compiler=${CXX:-g++}
flags=(-std=c++20 -g1 -fno-omit-frame-pointer -ffp-contract=off -pthread -I"$root/cpp")
sets=(generic)
if [[ $(uname -m) == x86_64 ]]; then
    sets+=(avx2)
    flags+=(-DOCTAVO_HAS_AVX2)
fi
generic=()
avx2=(-mavx2 -mfma -mf16c)
# What the sanitizers of undefined behaviour add to unrolled loops takes a minute to optimize.
address_undefined=(-O0 -fsanitize=address,undefined -fno-sanitize-recover=all)
thread=(-O1 -fsanitize=thread)

compile() { # SANITIZERS: prints one compiler call a line
    local -n with=$1
    local set source out="$build/$1"
    mkdir -p "$out"
    for set in "${sets[@]}"; do
        local -n more=$set
        for source in "$root"/cpp/kernels/*.cpp; do
            echo "$compiler ${flags[*]} ${with[*]} ${more[*]} -DOCTAVO_SET=$set" \
                "-DOCTAVO_SET_NAME='\"$set\"' -c $source -o $out/$set-$(basename "$source").o"
        done
    done
    for source in "$root"/cpp/*.cpp "$root/tests/native/kernels.cpp"; do
        case $source in */bind*.cpp) continue ;; esac # Python's door
        echo "$compiler ${flags[*]} ${with[*]} -DOCTAVO_SET=generic" \
            "-c $source -o $out/$(basename "$source").o"
    done
}

run() { # SANITIZERS
    local -n with=$1
    local plain=()
    "$compiler" -pthread "${with[@]}" "$build/$1"/*.o -o "$build/$1/kernels"
    # The thread sanitizer's memory map does not go with every kernel's random addresses.
    if setarch -R true 2>/dev/null; then plain=(setarch -R); fi
    echo "sanitizers: $1"
    "${plain[@]}" "$build/$1/kernels"
}

all=(address_undefined thread)
for some in "${all[@]}"; do compile "$some"; done | xargs -d '\n' -P "$(nproc)" -I{} sh -c "{}"
for some in "${all[@]}"; do run "$some"; done
