"""sasv info."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from sasv.checkpoints import load_checkpoint


@dataclass
class InfoOptions:
    """Print the specification of a checkpoint as JSON.

    Args:
        model: checkpoint.
    """

    model: str


def info(options: InfoOptions) -> dict[str, Any]:
    """Print and return what a checkpoint says of itself."""
    checkpoint = load_checkpoint(options.model)
    trained = {key: value for key, value in checkpoint.encoder.items() if not key.startswith("torchfbank.")}
    parameters = sum(
        value.numel()
        for key, value in trained.items()
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    result = asdict(checkpoint.specification) | {"parameters": parameters}
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return result
