"""sasv evaluate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasv.commands._metrics import metrics_of
from sasv.core.errors import MissingExtra, SasvError
from sasv.core.files import write_json
from sasv.core.progress import say
from sasv.embeddings.extract import Embeddings, extract
from sasv.embeddings.model import load_model
from sasv.report import format_metrics, plot_scores
from sasv.scores import score_embeddings
from sasv.tables import load_enrolments, load_trials, load_utterances, needed_utterances, save_scores


@dataclass
class EvaluateOptions:
    """Score a protocol: score file, metrics and plot.

    Args:
        utterances: utterance table.
        enrolments: enrolment table.
        trials: trial table.
        out: folder for scores.tsv, metrics.json, scores.png and the embeddings.
        model: checkpoint; may be left out where ``embeddings`` is given.
        embeddings: folder that sasv embed wrote, instead of embedding now.
        batch_seconds: padded audio per batch; 0 takes 30 on a CPU and 600 on a GPU.
        max_seconds: refuse longer utterances.
        intervals: bootstrap samples over speakers for 95 % intervals; 0 for none.
        plot: write scores.png (needs sasv[plots]).
        device: cpu, cuda, or auto.
    """

    utterances: str
    enrolments: str
    trials: str
    out: str
    model: str = ""
    embeddings: str = ""
    batch_seconds: float = 0.0
    max_seconds: float = 300.0
    intervals: int = 1000
    plot: bool = True
    device: str = "auto"


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Embed, score and measure a protocol; print the metrics and return them."""
    if not (options.model or options.embeddings):
        raise SasvError("evaluate needs --model, or --embeddings from sasv embed")
    out = Path(options.out)
    enrolments, trials = load_enrolments(options.enrolments), load_trials(options.trials)
    if options.embeddings:
        embeddings = Embeddings.load(options.embeddings)
    else:
        utterances = needed_utterances(load_utterances(options.utterances), enrolments, trials)
        model = load_model(options.model, options.device)
        model.max_seconds = options.max_seconds
        found = extract(model, utterances, out / "embeddings", options.batch_seconds, shard="1/1")
        assert found is not None
        embeddings = found
    values = score_embeddings(embeddings.vectors, embeddings.utterances, enrolments, trials, list(embeddings.failures))
    scores = save_scores(out / "scores.tsv", trials, values)
    result = metrics_of(scores, options.intervals)
    write_json(out / "metrics.json", result)
    print(format_metrics(result))
    if options.plot:
        try:
            plot_scores(scores.values, scores.labels, out / "scores.png", result)
        except MissingExtra as error:
            say(str(error))
    say(f"scores: {out / 'scores.tsv'}")
    return result
