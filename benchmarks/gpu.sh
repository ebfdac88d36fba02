#!/usr/bin/env bash
# Measures everything on one card, in one call and under six minutes:
#
#     benchmarks/gpu.sh wheels     # first, with a network: what the card's machine lacks, into build/wheels
#     benchmarks/gpu.sh [OUT]      # on the card's machine, which needs no network; PyTorch is the one installed there
#
# The results go into OUT (by default $OUT, or build/gpu): gpu.txt, gpu.json, profile.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
# Python of the card's machine; its packages are fetched for it.
TARGET=${TARGET:-3.12}
PACKAGES=(soundfile cffi pycparser soxr jsonargparse docstring-parser platformdirs filelock silero-vad pyworld-prebuilt
  speechbrain hyperpyyaml ruamel.yaml)

if [ "${1:-}" = wheels ]; then
  rm -rf build/wheels
  "$PYTHON" -m pip download --quiet --no-deps --only-binary :all: --python-version "$TARGET" \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --dest build/wheels "${PACKAGES[@]}"
  du -sh build/wheels
  exit
fi

OUT=${1:-${OUT:-build/gpu}}
mkdir -p "$OUT" build
if [ -d build/wheels ]; then
  "$PYTHON" -m pip install --quiet --no-index --no-deps --target build/packages build/wheels/*.whl
fi
export PYTHONPATH="$PWD/src:$PWD/build/packages${PYTHONPATH:+:$PYTHONPATH}"
"$PYTHON" benchmarks/gpu.py --out "$OUT" ${GPU_ARGS:-} 2>&1 | tee "$OUT/gpu.txt"
