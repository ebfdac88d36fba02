#!/usr/bin/env bash
# The model that sasv verify takes, CAM++ with a spoof axis: benchmarks/default_model.sh SHARED OUT
# Copies by WORLD and the source-filter vocoder for the axis; the neural source-filter vocoder is heard first in the calibration,
# Griffin-Lim in the test alone.
set -euo pipefail
speech=$1/speech weights=$1/weights out=$2
here=$(dirname "$0")
tables=$out/tables
nsf=$weights/nsf/hn-sinc-nsf-9.pt
sasv download campplus-zh-en
sasv prepare table "$speech" --out "$tables"
# Bona fide training utterances are dealt out in sixths. GLOBE is enhanced speech, and ASVspoof2019 is kept for later stages.
awk -F'\t' -v OFS='\t' 'NR == 1 { print $0, "sixth"; next }
  { print $0, $4 != "train" || $5 == "spoof" || $8 == "globe" || $8 == "asvspoof2019_la" ? "none" : ++n % 6 }' \
  "$tables/utterances.tsv" > "$tables/dealt.tsv"
sasv synthesize "$tables/dealt.tsv" --where 'split=train;sixth=1' --vocoders '[world]' --out "$out/train-1"
sasv synthesize "$out/train-1/utterances.tsv" --where 'split=train;sixth=2' --vocoders '[source-filter]' --out "$out/train"
# The rows that count: bona fide utterances of four sixths, and the copies, which belong to none.
awk -F'\t' 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "sixth") at = i } NR == 1 || $at ~ /^([1-4]|-)$/' \
  "$out/train/utterances.tsv" > "$out/train/chosen.tsv"
sasv synthesize "$tables/dealt.tsv" --trials "$tables/trials_dev.tsv" --vocoders '[world,source-filter,hn-nsf]' \
  --weights.hn-nsf "$nsf" --out "$out/dev"
python "$here/spoof_axis.py" "$out/train/chosen.tsv" "$out/axis.safetensors"
sasv convert "$out/axis.safetensors" "$out/half.safetensors" --half
# The threshold and the calibration: development trials.
sasv evaluate --utterances "$out/dev/utterances.tsv" --enrolments "$tables/enrolments_dev.tsv" \
  --trials "$out/dev/trials.tsv" --model "$out/half.safetensors" --out "$out/evaluation/dev"
sasv calibrate "$out/evaluation/dev/scores.tsv" --kind three-way --costs a-dcf-paper --model "$out/half.safetensors" \
  --model-out "$out/default.safetensors"
sasv synthesize "$tables/dealt.tsv" --trials "$tables/trials_test.tsv" \
  --vocoders '[griffin-lim,world,source-filter,hn-nsf,mulaw,amr,opus,mp3]' --weights.hn-nsf "$nsf" --out "$out/test"
for model in campplus-zh-en compact "$out/default.safetensors"; do
  name=$(basename "$model" .safetensors)
  sasv evaluate --utterances "$out/test/utterances.tsv" --enrolments "$tables/enrolments_test.tsv" \
    --trials "$out/test/trials.tsv" --model "$model" --out "$out/evaluation/test-$name" --by attack,codec
done
sasv report "campplus=$out/evaluation/test-campplus-zh-en" "compact=$out/evaluation/test-compact" \
  "default=$out/evaluation/test-default" --out "$out/report"
