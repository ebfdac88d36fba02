#!/usr/bin/env bash
# The small model in the package, by Stages 1 and 2 on real speech: benchmarks/compact_model.sh SPEECH OUT
# Copies by Griffin-Lim, WORLD and CARGAN for training and selection; the source-filter vocoder is heard in the test alone.
set -euo pipefail
shared=$1 out=$2
tables=$out/tables
sasv prepare table "$shared" --out "$tables"
# A column that deals the bona fide training utterances out: two eighths to each quick vocoder, one to CARGAN, which is slow.
awk -F'\t' -v OFS='\t' 'NR == 1 { print $0, "eighth"; next }
  { print $0, $4 == "train" && $5 != "spoof" ? ++n % 8 : "-" }' "$tables/utterances.tsv" > "$tables/dealt.tsv"
sasv synthesize "$tables/dealt.tsv" --where 'split=train;eighth=1,5' --vocoders '[griffin-lim]' --out "$out/train-1"
sasv synthesize "$out/train-1/utterances.tsv" --where 'split=train;eighth=2,6' --vocoders '[world]' --out "$out/train-2"
sasv synthesize "$out/train-2/utterances.tsv" --where 'split=train;eighth=0' --vocoders '[cargan]' --out "$out/train"
for part in dev test; do
  sasv synthesize "$tables/dealt.tsv" --trials "$tables/trials_$part.tsv" --vocoders '[griffin-lim,world,cargan]' \
    --out "$out/$part"
done
sasv synthesize "$tables/dealt.tsv" --trials "$tables/trials_test.tsv" --vocoders '[source-filter]' --out "$out/unseen"
dev=(--dev-utterances "$out/dev/utterances.tsv" --dev-enrolments "$tables/enrolments_dev.tsv"
  --dev-trials "$out/dev/trials.tsv")
sasv train stage1-small --utterances "$tables/utterances.tsv" --where split=train --out "$out/stage1" \
  --noises "$shared/noise" "${dev[@]}"
sasv train stage2-small --utterances "$out/train/utterances.tsv" --where split=train --out "$out/stage2" \
  --init "$out/stage1/model.safetensors" --batches-per-epoch 40 --warmup-epochs 0 --keep-classes --max-lr 3e-4 \
  --precision bfloat16 --compile --licence CC-BY-4.0 "${dev[@]}"
# 0.85 of Stage 2 and 0.15 of Stage 1 (Wortsman et al. 2022): it keeps more of what Stage 1 knew of speakers.
python - "$out/stage1/model.safetensors" "$out/stage2/model.safetensors" "$out/mixed.safetensors" <<'PY'
import sys

import torch
from sasv.checkpoints import load_checkpoint, save_checkpoint

first, second = (load_checkpoint(path) for path in sys.argv[1:3])
for key, value in second.encoder.items():
    if value.is_floating_point():
        second.encoder[key] = torch.lerp(first.encoder[key], value, 0.85)
second.specification.training["mixed"] = "0.85 of these weights and 0.15 of those it was trained from"
save_checkpoint(sys.argv[3], second)
PY
# The threshold and the calibration on the development trials; half precision.
sasv evaluate --utterances "$out/dev/utterances.tsv" --enrolments "$tables/enrolments_dev.tsv" \
  --trials "$out/dev/trials.tsv" --model "$out/mixed.safetensors" --out "$out/evaluation/dev"
cp "$out/evaluation/dev/scores.tsv" "$out/dev-scores.tsv"
sasv calibrate "$out/dev-scores.tsv" --costs a-dcf-paper --model "$out/mixed.safetensors" \
  --model-out "$out/calibrated.safetensors"
sasv convert "$out/calibrated.safetensors" "$out/compact.safetensors" --half
for part in test unseen; do
  for model in stage1/model compact; do
    sasv evaluate --utterances "$out/$part/utterances.tsv" --enrolments "$tables/enrolments_test.tsv" \
      --trials "$out/$part/trials.tsv" --model "$out/$model.safetensors" --out "$out/evaluation/$part-${model%/model}"
  done
  sasv report "stage1=$out/evaluation/$part-stage1" "compact=$out/evaluation/$part-compact" --out "$out/report-$part"
done
