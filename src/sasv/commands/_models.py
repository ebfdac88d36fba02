"""sasv models."""

from dataclasses import asdict, dataclass
from typing import Any

from sasv.core.options import Options
from sasv.weights import catalogue
from sasv.weights.place import here, home, place_of


@dataclass
class ModelsOptions(Options):
    """List the weights that can be used by name: those of sasv, those released with the paper, and
    public ones of other toolkits.

    Args:
        here: list only weights that are on this machine.
        json: print JSON.
    """

    here: bool = False
    json: bool = False


def models(options: ModelsOptions) -> list[dict[str, Any]]:
    """Return the named weights: where they come from, licence, size, whether they are here."""
    rows: list[dict[str, Any]] = []
    for entry in catalogue().values():
        path = place_of(entry.name) if here(entry) else None
        where = (
            f"Google Drive {entry.drive}"
            if entry.drive
            else "in the package"
            if entry.bundled
            else "never released"
        )
        where = entry.source or where
        row = asdict(entry) | {"source": where, "path": str(path) if path else None}
        if path or not options.here:
            rows.append(row)
    fetched = sorted(home().glob("*--*/model.safetensors")) if home().is_dir() else []
    for path in fetched:
        name = path.parent.name.replace("--", "/", 1)
        rows.append({"name": name, "source": "Hugging Face hub", "path": str(path)})
    return rows
