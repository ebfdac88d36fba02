"""sasv models."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from sasv.core.options import Options
from sasv.weights import catalogue
from sasv.weights.place import here, home, place_of


@dataclass
class ModelsOptions(Options):
    """List the weights that have a name: ours, and those released with the paper.

    Args:
        here: only those on this machine.
        json: print JSON.
    """

    here: bool = False
    json: bool = False


def models(options: ModelsOptions) -> list[dict[str, Any]]:
    """Print and return the named weights: where they come from, licence, size, whether they are here."""
    rows: list[dict[str, Any]] = []
    for entry in catalogue().values():
        path = place_of(entry.name) if here(entry) else None
        where = (
            f"Google Drive {entry.drive}" if entry.drive else "in the package" if entry.bundled else "never released"
        )
        row = asdict(entry) | {"source": where, "path": str(path) if path else None}
        if path or not options.here:
            rows.append(row)
    fetched = sorted(home().glob("*--*/model.safetensors")) if home().is_dir() else []
    for path in fetched:
        name = path.parent.name.replace("--", "/", 1)
        rows.append({"name": name, "source": "Hugging Face hub", "path": str(path)})
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return rows
    header = ("name", "encoder", "trained on", "published", "MB", "licence", "here", "where it is")
    lines = [header]
    for row in rows:
        published = "-" if row.get("published") is None else f"{row['published']:.2f}%"
        size = f"{row['megabytes']:.0f}" if row.get("megabytes") else "-"
        cells = row["name"], row.get("encoder", "-"), row.get("train_set", "-"), published, size
        lines.append((*cells, row.get("licence", "in its card"), "yes" if row["path"] else "no", row["source"]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print("\npublished: SASV-EER on the ASVspoof2019 LA evaluation. Fetch: sasv download NAME. Use: --model NAME.")
    return rows
