#!/usr/bin/env bash
# Stages 1, 2 and 3 on the real speech of shared/speech, for docs/results.md: benchmarks/real_stages.sh SHARED OUT SEED...
# Copies for training and selection are made by two vocoders, those for the test by a third.
set -euo pipefail
shared=$1 out=$2
shift 2
sasv prepare table "$shared" --out "$out/tables"
sasv synthesize "$out/tables/utterances.tsv" --where split=train --vocoders '[griffin-lim,source-filter]' --out "$out/train"
sasv synthesize "$out/tables/utterances.tsv" --trials "$out/tables/trials_dev.tsv" \
  --vocoders '[griffin-lim,source-filter]' --out "$out/dev"
sasv synthesize "$out/tables/utterances.tsv" --trials "$out/tables/trials_test.tsv" --vocoders '[world]' --out "$out/test"
sasv prepare asvspoof2019 "$shared/ASVspoof2019" --out "$out/la"
# Dev trials for Stage 3: each speaker with two bona fide files is enrolled by the first.
python - "$out/la" <<'PY'
import sys
from sasv.tables import Table, load_utterances

table = load_utterances(f"{sys.argv[1]}/utterances.tsv").where("split=dev")
rows = list(zip(table.ids, table.table.texts("speaker"), table.spoofed, table.attack_texts))
bona_fide, enrolled = {}, {}
for name, speaker, spoofed, _ in rows:
    if not spoofed:
        bona_fide.setdefault(speaker, []).append(name)
enrolled = {speaker: names[0] for speaker, names in bona_fide.items() if len(names) > 1}
trials = []
for claimed, own in enrolled.items():
    for name, speaker, spoofed, attack in rows:
        if name in enrolled.values() or (spoofed and speaker != claimed):
            continue
        label = "spoof" if spoofed else "target" if speaker == claimed else "nontarget"
        trials.append((claimed, name, label, attack))
Table.build({"speaker": list(enrolled), "utterances": list(enrolled.values())}).save(f"{sys.argv[1]}/enrolments_dev.tsv")
Table.build(dict(zip(("speaker", "utterance", "label", "attack"), zip(*trials)))).save(f"{sys.argv[1]}/trials_dev.tsv")
PY
small=(--encoder-options.channels=128 --encoder-options.pooled=256 --encoder-options.attention=64 --encoder-options.bottleneck=64)
dev=(--dev-utterances "$out/dev/utterances.tsv" --dev-enrolments "$out/tables/enrolments_dev.tsv"
  --dev-trials "$out/dev/trials.tsv")
la=(--dev-utterances "$out/la/utterances.tsv" --dev-enrolments "$out/la/enrolments_dev.tsv"
  --dev-trials "$out/la/trials_dev.tsv")
for seed in "$@"; do
  run=$out/seed$seed
  sasv train stage1-small --utterances "$out/tables/utterances.tsv" --where split=train --out "$run/stage1" \
    "${small[@]}" --seed "$seed" --epochs 16 --cycle-epochs 16 --noises "$shared/noise" "${dev[@]}"
  sasv train stage2-small --utterances "$out/train/utterances.tsv" --where split=train --out "$run/stage2" \
    --init "$run/stage1/model.safetensors" --seed "$seed" "${dev[@]}"
  sasv train stage3-asvspoof2019-train --utterances "$out/la/utterances.tsv" --where split=train --out "$run/stage3" \
    --init "$run/stage2/model.safetensors" --seed "$seed" --pairs 18 --spoof-pairs 18 --batches-per-epoch 8 --epochs 8 \
    --num-workers 1 "${la[@]}"
  for stage in 1 2; do
    sasv evaluate --utterances "$out/test/utterances.tsv" --enrolments "$out/tables/enrolments_test.tsv" \
      --trials "$out/test/trials.tsv" --model "$run/stage$stage/model.safetensors" --out "$run/test$stage"
  done
  for stage in 1 2 3; do
    sasv evaluate --utterances "$out/la/utterances.tsv" --enrolments "$out/la/enrolments_dev.tsv" \
      --trials "$out/la/trials_dev.tsv" --model "$run/stage$stage/model.safetensors" --out "$run/la$stage"
  done
done
