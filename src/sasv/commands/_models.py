"""sasv models."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from sasv.core.options import Options
from sasv.weights import catalogue
from sasv.weights.place import is_local, place_of, weights_folder


@dataclass
class ModelsOptions(Options):
    """List the weights that can be used by name: those of sasv, those released with the paper, and
    public ones of other toolkits.

    Args:
        local: list only weights that are on this machine.
        json: print JSON.
    """

    RENAMED: ClassVar[dict[str, str]] = {"here": "local"}

    local: bool = False
    json: bool = False


def models(options: ModelsOptions) -> list[dict[str, Any]]:
    """Return the named weights with their source, licence, size, and path on this machine."""
    rows: list[dict[str, Any]] = []
    for entry in catalogue().values():
        path = place_of(entry.name) if is_local(entry) else None
        where = (
            f"Google Drive {entry.drive}"
            if entry.drive
            else "in the package"
            if entry.bundled
            else "never released"
        )
        where = entry.source or where
        row = asdict(entry) | {"source": where, "path": str(path) if path else None}
        if path or not options.local:
            rows.append(row)
    fetched = (
        sorted(weights_folder().glob("*--*/model.safetensors")) if weights_folder().is_dir() else []
    )
    for path in fetched:
        name = path.parent.name.replace("--", "/", 1)
        rows.append({"name": name, "source": "Hugging Face hub", "path": str(path)})
    return rows
