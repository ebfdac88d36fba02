"""Stage 2 is trained on copies by some vocoders and tested on copies by each: which vocoder
generalises best to the others?

    python benchmarks/vocoder_matrix.py SPEECH OUT --seeds 0 1 2

SPEECH is a folder with tables (shared/speech). Finished steps are skipped. Epochs are chosen on
development trials whose copies are made by the vocoders of the row. Writes OUT/matrix.tsv: row,
column, seed, SASV-, SV-, SPF-EER.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from sasv.tables import Table, load_trials

VOCODERS = ("griffin-lim", "source-filter", "world")
PAIRS = tuple(",".join(name for name in VOCODERS if name != other) for other in VOCODERS)
SMALL = [
    f"--encoder-options.{name}={value}"
    for name, value in zip(("channels", "pooled", "attention", "bottleneck"), (128, 256, 64, 64))
]


def sasv(done: Path, *arguments: object) -> None:
    """Run a command unless its result exists."""
    if not done.exists():
        subprocess.run([sys.executable, "-m", "sasv", *map(str, arguments)], check=True)


def only(trials: Path, vocoders: list[str], out: Path) -> Path:
    """Write the trials without the spoofed ones of other vocoders."""
    loaded = load_trials(trials)
    cells = {name: loaded.table.texts(name) for name in ("speaker", "utterance", "label", "attack")}
    keep = [attack in ("-", *vocoders) for attack in cells["attack"]]
    Table.build(
        {name: [cell for cell, kept in zip(texts, keep) if kept] for name, texts in cells.items()}
    ).save(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("speech", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--rows", nargs="+", default=[*VOCODERS, *PAIRS], help="vocoders of a row, comma-separated"
    )
    options = parser.parse_args()
    out, tables = options.out, options.out / "tables"
    everything = tables / "utterances.tsv"
    sasv(everything, "prepare", "table", options.speech, "--out", tables)
    sasv(
        out / "train/utterances.tsv",
        "synthesize",
        everything,
        "--where",
        "split=train",
        "--out",
        out / "train",
    )
    for part in ("dev", "test"):
        trials = ("--trials", tables / f"trials_{part}.tsv", "--out", out / part)
        sasv(out / part / "trials.tsv", "synthesize", everything, *trials)
    enrolments = ("--enrolments", tables / "enrolments_test.tsv")
    columns = {
        name: only(out / "test/trials.tsv", [name], out / f"test-{name}.tsv") for name in VOCODERS
    }
    for seed in options.seeds:
        common = ("--seed", seed, "--dev-enrolments", tables / "enrolments_dev.tsv")
        first = out / "s1" / str(seed)
        speech = (
            "--utterances",
            everything,
            "--where",
            "split=train",
            "--noises",
            options.speech / "noise",
        )
        dev = ("--dev-utterances", everything, "--dev-trials", tables / "trials_dev.tsv")
        epochs = ("--epochs", 16, "--cycle-epochs", 16)
        sasv(
            first / "model.safetensors",
            "train",
            "stage1-small",
            *speech,
            *dev,
            *SMALL,
            *epochs,
            *common,
            "--out",
            first,
        )
        models = {"stage 1": first}
        for row in options.rows:
            models[row] = out / "s2" / row / str(seed)
            models[row].parent.mkdir(parents=True, exist_ok=True)
            trials = only(out / "dev/trials.tsv", row.split(","), out / f"dev-{row}.tsv")
            speech = (
                "--utterances",
                out / "train/utterances.tsv",
                "--where",
                f"split=train;attack=-,{row}",
            )
            dev = ("--dev-utterances", out / "dev/utterances.tsv", "--dev-trials", trials)
            start = ("--init", first / "model.safetensors", "--out", models[row])
            sasv(models[row] / "done", "train", "stage2-small", *speech, *dev, *start, *common)
            (models[row] / "done").touch()
        lines = []
        for row, folder in models.items():
            for column, trials in columns.items():
                result = out / "results" / row / column / str(seed)
                data = (
                    "--utterances",
                    out / "test/utterances.tsv",
                    *enrolments,
                    "--trials",
                    trials,
                )
                model = ("--model", folder / "model.safetensors", "--out", result)
                sasv(result / "metrics.json", "evaluate", *data, *model)
                found = json.loads((result / "metrics.json").read_text())
                lines.append(
                    (
                        row,
                        column,
                        seed,
                        *(f"{found[name]:.2f}" for name in ("sasv_eer", "sv_eer", "spf_eer")),
                    )
                )
        header = ("row", "column", "seed", "sasv_eer", "sv_eer", "spf_eer")
        Table.build(dict(zip(header, zip(*lines)))).save(out / f"matrix-{seed}.tsv")


if __name__ == "__main__":
    main()
