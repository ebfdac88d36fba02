"""What a trained model records about its training: its specification, and the threshold chosen on
development trials.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sasv.checkpoints import Specification
from sasv.core.version import __version__
from sasv.decision import Verifier
from sasv.encoders.base import Encoder
from sasv.training.data import TrainingData


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """Information about the training that is stored in a model but not needed by the trainer.

    Attributes:
        loss: name of the loss.
        licence: licence of the model.
        init: initial checkpoint; empty if there was none.
        seed: random seed of the training.
    """

    loss: str
    licence: str = "unknown"
    init: str = ""
    seed: int = 0

    def specification(
        self, encoder: Encoder, data: TrainingData, epoch: int, average: str
    ) -> Specification:
        """Return the specification of a model after ``epoch`` epochs; ``average`` is the type of
        averaging of its weights.
        """
        return Specification(
            **encoder.description(),
            classes=list(data.classes),
            spoof_index=data.spoof_index,
            loss=self.loss,
            licence=self.licence,
            training={
                "sasv": __version__,
                "epoch": epoch,
                "seed": self.seed,
                "loss": self.loss,
                "table": Path(data.source).name,
                "utterances": len(data.utterances),
                "init": Path(self.init).name,
                "average": average,
            },
        )


def add_decision(
    specification: Specification,
    metric: str,
    result: Mapping[str, float | int | None],
    epoch: int,
) -> None:
    """Write the threshold chosen on development trials into a specification.

    Args:
        specification: the specification of the model.
        metric: the EER whose threshold is used.
        result: EERs and thresholds of the development trials.
        epoch: number of epochs that the model was trained for.
    """
    name = metric.removesuffix("_eer")
    threshold = result[f"{name}_threshold"]
    assert threshold is not None
    source = f"{name.upper()}-EER point of the development trials, epoch {epoch}"
    verifier = Verifier(threshold=float(threshold), threshold_source=source)
    specification.scoring = verifier.scoring.to_dict()
    specification.decision = verifier.decision_record()
    specification.training[f"dev_{metric}"] = result[metric]
