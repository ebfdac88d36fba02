#!/usr/bin/env bash
# How five systems hold, the results in docs/guides/stress.md: benchmarks/stress.sh SHARED OUT
# A second run computes only what changed: a new default model takes a few minutes.
set -euo pipefail
speech=$1/speech out=$2
PYTHONPATH=$(cd "$(dirname "$0")" && pwd)${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
sasv download campplus-zh-en
sasv prepare table "$speech" --out "$out/tables"
# Development speakers; the attacks of ASVspoof2019 have two spoofs each, so they are one here.
awk -F'\t' -v OFS='\t' 'NR == 1 || $4 == "dev" { if ($5 == "spoof") $6 = "asvspoof2019"; print }' \
  "$out/tables/utterances.tsv" > "$out/dev.tsv"
sasv stress "$out/dev.tsv" --out "$out/report" --speakers 12 --recordings 1 --impostors 11 --max-seconds 4 \
  --vocoders griffin-lim,source-filter,world --conditions mp3-16,g711,babble-5,speech-1.5 --system default \
  --against compact,CAM++=campplus-zh-en,Resemblyzer=stress_systems:resemblyzer,ECAPA-random=stress_systems:ecapa
