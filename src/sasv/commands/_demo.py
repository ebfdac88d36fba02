"""sasv demo: the whole pipeline in one command."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sasv.commands._evaluate import EvaluateOptions, evaluate
from sasv.commands._synthesize import SynthesizeOptions, synthesize
from sasv.commands._train import TrainOptions, train
from sasv.core.progress import duration, say
from sasv.corpora import CORPORA, synthetic
from sasv.corpora.base import write_tables
from sasv.corpora.protocol import add_protocol

SIZES = {"channels": 128, "pooled": 256, "attention": 64, "bottleneck": 64}
SHARE = {"train": "training", "dev": "development", "test": "test"}


@dataclass
class DemoOptions:
    """Prepare speech, train a small encoder, enrol unseen speakers, score target, nontarget and spoofed trials.

    Args:
        corpus: LibriSpeech-style folder (SUBSET/SPEAKER/CHAPTER/NAME.flac); empty renders synthetic speakers.
        out: folder for everything; a second run goes on where the first stopped.
        speakers: synthetic speakers to render.
        epochs: training epochs.
        batches: batches an epoch.
        pairs: speakers (pairs of utterances) a batch.
        vocoders: makers of the spoofed copies.
        workers: loader processes.
        seed: of everything.
        device: cpu, cuda, or auto.
    """

    corpus: str = ""
    out: str = "demo"
    speakers: int = 80
    epochs: int = 10
    batches: int = 40
    pairs: int = 32
    vocoders: list[str] = field(default_factory=lambda: ["griffin-lim", "world"])
    workers: int = 1
    seed: int = 0
    device: str = "auto"


def demo(options: DemoOptions) -> dict[str, Any]:
    """Run the demonstration; print and return the metrics of the test trials."""
    started = time.monotonic()
    out = Path(options.out)
    heading(
        1, "speech: " + (f"reading {options.corpus}" if options.corpus else f"rendering {options.speakers} speakers")
    )
    root = (
        Path(options.corpus)
        if options.corpus
        else synthetic.render(out / "speech", options.speakers, seed=options.seed)
    )
    lists = CORPORA.get("librispeech")(root)
    add_protocol(lists, options.seed)
    tables = write_tables(lists, out / "tables", allow_missing=True)
    counts = {
        part: len({row.speaker for row in lists.utterances if row.split == part}) for part in ("train", "dev", "test")
    }
    say(
        "speakers: "
        + ", ".join(f"{count} {SHARE[part]}" for part, count in counts.items())
        + "; none is in two of these"
    )

    heading(2, f"spoofed speech: the target speakers' own test utterances through {' and '.join(options.vocoders)}")
    spoofed = {}
    for part in ("dev", "test"):
        spoofed[part] = out / "spoofed" / part
        synthesize(
            SynthesizeOptions(
                utterances=str(tables.utterances),
                out=str(spoofed[part]),
                vocoders=options.vocoders,
                trials=str(tables.trials[part]),
                seed=options.seed,
            )
        )

    heading(3, "training: Stage 1, speaker classification (no spoofed speech is seen)")
    model = train(
        TrainOptions(
            utterances=str(tables.utterances),
            out=str(out / "stage1"),
            where="split=train",
            dev_utterances=str(spoofed["dev"] / "utterances.tsv"),
            dev_enrolments=str(tables.enrolments["dev"]),
            dev_trials=str(spoofed["dev"] / "trials.tsv"),
            metric="sv_eer",
            sizes=SIZES,
            epochs=options.epochs,
            batches=options.batches,
            speakers=min(options.pairs, counts["train"]),
            frames=150,
            highest=2e-3,
            cycle=options.epochs,
            warmup=1,
            evaluate_every=2,
            workers=options.workers,
            device=options.device,
            seed=options.seed,
            licence="CC0-1.0" if not options.corpus else "that of the training speech",
        )
    )

    heading(4, "evaluation: speakers and spoofs never seen")
    result = evaluate(
        EvaluateOptions(
            utterances=str(spoofed["test"] / "utterances.tsv"),
            enrolments=str(tables.enrolments["test"]),
            trials=str(spoofed["test"] / "trials.tsv"),
            out=str(out / "evaluation"),
            model=str(model),
            device=options.device,
        )
    )
    print(closing(options, out, result, duration(time.monotonic() - started)))
    return result


def heading(number: int, text: str) -> None:
    """Say what comes next."""
    say(f"\n[{number}/4] {text}")


def closing(options: DemoOptions, out: Path, result: dict[str, Any], took: str) -> str:
    """Return what the figures mean and what to type next."""
    if options.corpus:
        speech = f"The speech is yours ({options.corpus})."
    else:
        speech = (
            "The voices are synthetic (espeak-ng): these figures show that the pipeline works,\n"
            "not how well it does on people."
        )
    lines = [
        "",
        speech,
        f"SV-EER {result['sv_eer']:.1f}%: how often other people are confused with the claimed speaker.",
        f"SPF-EER {result['spf_eer']:.1f}%: how often vocoded copies of the speaker pass for the speaker.",
        "A model trained on speakers alone (Stage 1) tells people apart and falls for copies: closing",
        "that gap is what sasv is for.",
        f"Small and quick on purpose: {result['targets']} target trials, {took}.",
        "",
        f"scores  {out}/evaluation/scores.tsv",
        f"plot    {out}/evaluation/scores.png",
        f"model   {out}/stage1/model.safetensors",
    ]
    if not options.corpus:
        lines += ["", "The same on real speech, in LibriSpeech's layout:   make demo CORPUS=/path/to/LibriSpeech"]
    return "\n".join(lines)
