"""Chooses the model and its threshold on development trials. Evaluation data are never used."""

from dataclasses import dataclass

import numpy as np

from sasv.audio import probe
from sasv.core.errors import AudioError, SasvError, listed
from sasv.embeddings.extract import embed_table
from sasv.embeddings.model import Model
from sasv.evaluation.protocol import load_protocol
from sasv.metrics import sasv_eers
from sasv.parallel.processes import Processes
from sasv.scores import score_embeddings
from sasv.tables import Enrolments, Trials, Utterances
from sasv.training.options import SelectionOptions


def check_readable(utterances: Utterances, source: str) -> None:
    """Open every file, so that unreadable files are reported before the first epoch.

    Raises:
        SasvError: files cannot be read; the message names them.
    """
    failures = []
    for path in utterances.paths:
        try:
            probe(path)
        except AudioError as error:
            failures.append(str(error))
    if failures:
        raise SasvError(
            f"{source}: {len(failures)} of {len(utterances)} development files cannot be read "
            f"({listed(failures, 3)}); fix them or remove their rows"
        )


@dataclass
class DevelopmentSet:
    """Development trials with their utterances."""

    utterances: Utterances
    enrolments: Enrolments
    trials: Trials
    metric: str

    @classmethod
    def load(cls, options: SelectionOptions, utterances: str) -> "DevelopmentSet | None":
        """Read the tables given by the options; return None if there are none.

        This checks everything that an evaluation needs: that the metric can be computed from the
        trials, and that every file can be read.

        Args:
            options: see SelectionOptions.
            utterances: the training table, which is used if the options name no development
                utterances.

        Raises:
            SasvError: a table or file cannot be used, or the trials do not suit the metric.
        """
        if not options.dev_trials:
            return None
        protocol = load_protocol(
            options.dev_utterances or utterances, options.dev_enrolments, options.dev_trials
        )
        enrolments = protocol.enrolments
        trials = protocol.trials
        assert enrolments is not None and trials is not None
        metric = options.metric
        if metric == "auto":
            metric = "sasv_eer" if trials.counts()["spoof"] else "sv_eer"
        rates = sasv_eers(np.linspace(0, 1, len(trials)), trials.labels)
        if rates[metric] is None:
            counts = ", ".join(f"{count:,} {label}" for label, count in trials.counts().items())
            raise SasvError(
                f"{options.dev_trials}: {metric} cannot be computed from its trials ({counts}); "
                "choose another --metric"
            )
        check_readable(protocol.utterances, options.dev_trials)
        return cls(protocol.utterances, enrolments, trials, metric)

    def evaluate(self, model: Model, processes: Processes) -> dict[str, float | int | None]:
        """Return the EERs and thresholds of a model on these trials. Each process embeds a part of
        the utterances.
        """
        share = np.arange(len(self.utterances)) % processes.world == processes.rank
        own = embed_table(model, self.utterances.take(share))
        parts = processes.gather((own.vectors, own.utterances, own.failures))
        vectors, names, failures = zip(*parts)
        reasons = {name: reason for part in failures for name, reason in part.items()}
        scores = score_embeddings(
            np.concatenate(vectors), sum(names, []), self.enrolments, self.trials, reasons
        )
        return sasv_eers(scores, self.trials.labels)
