#!/usr/bin/env bash
# The models in the package: the one that sasv verify takes, CAM++ with a last layer fitted to codecs, a spoof axis, and a calibration
# that knows the bandwidth, and compact, which is distilled from it: benchmarks/default_model.sh SHARED OUT
# In both, the directions of the embedding that codecs change count less; each has such directions of its own, so that compact is
# distilled before.
# Copies by WORLD and the source-filter vocoder are made to fit the axis, and those by FARGAN and CARGAN two more heads of it; those by the
# neural source-filter vocoder choose its slope and are in the calibration; those by Griffin-Lim are in the test alone.
# FARGAN needs a C compiler and the apt of Debian; CARGAN needs pip install --no-deps cargan.
set -euo pipefail
speech=$1/speech weights=$1/weights out=$2
here=$(dirname "$0")
tables=$out/tables
nsf=$weights/nsf/hn-sinc-nsf-9.pt
fargan=$out/fargan/fargan_demo
# Two or three processes run at a time, so that each has one thread.
export OMP_NUM_THREADS=1
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
"$here/fargan.sh" "$out/fargan"
sasv download campplus-zh-en
sasv prepare table "$speech" --out "$tables"
# For the axis and the last layer, no GLOBE, which is enhanced speech. Of ASVspoof2019, bona fide speech is used for the heads.
where='split=train;corpus=librispeech,libritts,arabic_commands'
whiten() {
  python "$here/whiten.py" "$tables/utterances.tsv" "$out/$1-whitened.safetensors" --noises "$speech/noise" --where "$where" \
    --init "$out/$1.safetensors"
}
heads() {
  python "$here/axis_heads.py" "$tables/utterances.tsv" "$out/$1-heads.safetensors" --noises "$speech/noise" --fargan "$fargan" \
    --cache "$out/cargan" --where 'split=train;label=bonafide;corpus=librispeech,libritts,arabic_commands,asvspoof2019_la' \
    --init "$out/$1-whitened.safetensors"
}
{
  python "$here/spoof_axis.py" "$tables/utterances.tsv" "$out/axis.safetensors" --noises "$speech/noise" --where "$where"
  { whiten axis && heads axis; } &
  axis=$!
  python "$here/distil.py" "$tables/utterances.tsv" "$out/student.safetensors" --noises "$speech/noise" --cache "$out/crops" \
    --teacher "$out/axis.safetensors" --where 'split=train;label=bonafide;corpus=librispeech,libritts,arabic_commands,globe'
  whiten student
  wait "$axis"
  heads student
} &
models=$!
# The threshold and the calibration: development trials, as they are, through codecs, and with voiceprints enrolled over the telephone.
sasv synthesize "$tables/utterances.tsv" --trials "$tables/trials_dev.tsv" \
  --vocoders '[world,source-filter,fargan,hn-nsf,amr,mulaw,mp3,opus]' --weights.hn-nsf "$nsf" --weights.fargan "$fargan" \
  --out "$out/dev"
# Meanwhile, the copies for the test, which are looked at once, when both models are final.
sasv synthesize "$tables/utterances.tsv" --trials "$tables/trials_test.tsv" \
  --vocoders '[griffin-lim,world,source-filter,fargan,hn-nsf,mulaw,amr,opus,mp3]' --weights.hn-nsf "$nsf" --weights.fargan "$fargan" \
  --out "$out/test" --num-workers 2 &
copies=$!
wait "$models"
sasv convert "$out/axis-heads.safetensors" "$out/half.safetensors" --half
python "$here/telephone_trials.py" "$out/dev/utterances.tsv" "$tables/enrolments_dev.tsv" "$out/dev/trials.tsv" "$out/telephone"
sasv evaluate --utterances "$out/dev/utterances.tsv" --enrolments "$out/telephone/enrolments.tsv" \
  --trials "$out/telephone/trials.tsv" --model "$out/half.safetensors" --quality --out "$out/evaluation/dev"
sasv calibrate "$out/evaluation/dev/scores.tsv" --kind three-way --quality '[bandwidth]' --costs a-dcf-paper \
  --model "$out/half.safetensors" --model-out "$out/default.safetensors" \
  --limits.min_self_agreement 0.35 --limits.min_narrow_self_agreement 0.3
# The same for compact, with the weights that it has after storage in eight bits.
sasv convert "$out/student-heads.safetensors" "$out/student-int8.safetensors" --int8
sasv evaluate --utterances "$out/dev/utterances.tsv" --enrolments "$out/telephone/enrolments.tsv" \
  --trials "$out/telephone/trials.tsv" --model "$out/student-int8.safetensors" --quality --out "$out/evaluation/dev-compact"
sasv calibrate "$out/evaluation/dev-compact/scores.tsv" --kind three-way --quality '[bandwidth]' --costs a-dcf-paper \
  --model "$out/student-int8.safetensors" --model-out "$out/calibrated.safetensors" \
  --limits.min_self_agreement 0.35
sasv convert "$out/calibrated.safetensors" "$out/compact.safetensors" --int8
wait "$copies"
unset OMP_NUM_THREADS
for model in campplus-zh-en "$out/compact.safetensors" "$out/default.safetensors"; do
  name=$(basename "$model" .safetensors)
  sasv evaluate --utterances "$out/test/utterances.tsv" --enrolments "$tables/enrolments_test.tsv" \
    --trials "$out/test/trials.tsv" --model "$model" --out "$out/evaluation/test-$name" --by attack,codec
done
sasv report "campplus=$out/evaluation/test-campplus-zh-en" "compact=$out/evaluation/test-compact" \
  "default=$out/evaluation/test-default" --out "$out/report"
