"""Choosing the model and its threshold on development trials. Evaluation sets are never opened here."""

from dataclasses import dataclass

import numpy as np

from sasv.core.errors import SasvError
from sasv.embeddings.extract import embed_table
from sasv.embeddings.model import Model
from sasv.metrics import sasv_eers
from sasv.parallel.processes import Processes
from sasv.scores import score_embeddings
from sasv.tables import Enrolments, Trials, Utterances, load_enrolments, load_trials, load_utterances, needed_utterances
from sasv.training.options import TrainOptions


@dataclass
class DevelopmentSet:
    """Development trials with the utterances they need."""

    utterances: Utterances
    enrolments: Enrolments
    trials: Trials
    metric: str

    @classmethod
    def load(cls, options: TrainOptions) -> "DevelopmentSet | None":
        """Read the tables that the options name, check them against each other; None where none are named."""
        if bool(options.dev_trials) != bool(options.dev_enrolments):
            raise SasvError("development trials and enrolments belong together: give both or neither")
        if not options.dev_trials:
            return None
        enrolments, trials = load_enrolments(options.dev_enrolments), load_trials(options.dev_trials)
        everything = load_utterances(options.dev_utterances or options.utterances)
        metric = options.metric
        if metric == "auto":
            metric = "sasv_eer" if trials.counts()["spoof"] else "sv_eer"
        return cls(needed_utterances(everything, enrolments, trials), enrolments, trials, metric)

    def evaluate(self, model: Model, processes: Processes) -> dict[str, float | int | None]:
        """Return the EERs and thresholds of a model on these trials; each process embeds a part of the utterances."""
        share = np.arange(len(self.utterances)) % processes.world == processes.rank
        own = embed_table(model, self.utterances.take(share))
        parts = processes.gather((own.vectors, own.utterances, own.failures))
        vectors, names, failures = zip(*parts)
        reasons = {name: reason for part in failures for name, reason in part.items()}
        scores = score_embeddings(np.concatenate(vectors), sum(names, []), self.enrolments, self.trials, reasons)
        result = sasv_eers(scores, self.trials.labels)
        if result[self.metric] is None:
            raise SasvError(f"{self.trials.table.name}: the trials give no {self.metric}; choose another --metric")
        return result
