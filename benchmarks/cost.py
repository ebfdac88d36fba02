"""The cost of each stage on each corpus: hours of cores and GPUs, disk space, and money. Prints the
tables of docs/guides/cost.md, from measured speeds and assumed prices.

The speeds are constants below, each with its source; corpora and the rules of the plans are those
of ``sasv.reproduction.costs``. Nothing is measured here.

    python benchmarks/cost.py [--core-hour 0.04] [--card-hour 3] [--terabyte-month 23]
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sasv.reproduction.costs import (
    ASVSPOOF2019_HOURS,
    FLAC_BYTES_PER_SECOND,
    VOXCELEB2_HOURS,
    VOXCELEB2_UTTERANCES,
)

CORE_HOUR = 0.04
CARD_HOUR = 3.0
TERABYTE_MONTH = 23.0
"""Prices in US dollars: assumptions near those of large clouds on demand; put in your own."""

COPIES_PER_CORE = {
    "griffin-lim": 39.5,
    "source-filter": 96.0,
    "world": 24.5,
    "cargan": 0.5,
    "8khz": 1823.0,
    "mulaw": 1363.0,
    "alaw": 1510.0,
    "g722": 490.0,
    "amr": 179.0,
    "opus": 96.0,
    "mp3": 138.0,
}
"""Times real time on one core (docs/results.md, Vocoders)."""

STEP_ON_H200 = {
    "ECAPA-TDNN": {"float32": 0.122, "bfloat16": 0.0450, "bfloat16, compiled": 0.0203},
    "MFA-Conformer": {"bfloat16": 0.0650, "bfloat16, compiled": 0.0334},
    "SKA-TDNN": {"bfloat16": 0.1714, "bfloat16, compiled": 0.0924},
    "CAM++": {"bfloat16": 0.1726},
}
"""Seconds of a step of the published Stage 1 (100 pairs of 2 s, 5,994 classes) on one H200, with
--channels-last; compiled with --compile-mode reduce-overhead (docs/results.md, Training on a GPU).
"""

FROM_FILES_ON_H200 = {
    "ECAPA-TDNN from FLAC, speed": 0.0271,
    "ECAPA-TDNN from FLAC, noise, reverberation, speed": 0.0312,
}
"""The same for the compiled ECAPA-TDNN from FLAC files, with 14 loader workers and the augmentation
on the GPU; the start of the workers is included, which is 2 s of an epoch.
"""

STAGE1_EPOCHS = 100
STAGE1_CROPS = 200
"""Crops of a step: 100 pairs."""

EMBEDDING_ON_H100 = {"ECAPA-TDNN": 20_200.0, "MFA-Conformer": 9_400.0, "SKA-TDNN": 4_000.0}
"""Times real time on one H100, batches of 150 recordings of 4 s."""

EMBEDDING_PER_CORE = {"ECAPA-TDNN": 58.0, "MFA-Conformer": 31.0, "CAM++ (default)": 27.8}
"""Times real time on one core (docs/results.md, Benchmarks)."""

BYTES_PER_EMBEDDING = {
    "ECAPA-TDNN": 192 * 4,
    "MFA-Conformer": 192 * 4,
    "SKA-TDNN": 192 * 4,
    "CAM++ (default)": 193 * 4,
}


@dataclass(frozen=True)
class Corpus:
    """A corpus: its utterances, and its hours of speech."""

    name: str
    utterances: int
    hours: float


CORPORA = (
    Corpus("VoxCeleb2 dev", VOXCELEB2_UTTERANCES, VOXCELEB2_HOURS),
    Corpus("ASVspoof2019 LA, all", 121_461, 121_461 * 3.3 / 3600),
    Corpus("ASVspoof 5, all", 1_004_081, 1_004_081 * 7.0 / 3600),
    Corpus("SpoofCeleb, all", 2_500_000, 2_500_000 * 5.0 / 3600),
)
"""Hours of the last three are estimates from assumed lengths: 3.3, 7, and 5 s an utterance."""


@dataclass(frozen=True)
class Prices:
    """Prices of an hour of a core, of a card, and of a month of a terabyte."""

    core: float = CORE_HOUR
    card: float = CARD_HOUR
    terabyte: float = TERABYTE_MONTH


def terabytes(hours: float) -> float:
    """Return the disk space that speech takes as FLAC."""
    return hours * 3600 * FLAC_BYTES_PER_SECOND / 1e12


def shown(value: float) -> str:
    """Return a number with two significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2g}"


def dollars(value: float) -> str:
    """Return a price."""
    return "< 1" if value < 1 else f"{value:,.0f}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(map(str, cells)) + " |" for cells in lines]


def copies(prices: Prices) -> list[str]:
    """Copies of VoxCeleb2 and of the bona fide speech of ASVspoof2019 LA, by vocoder."""
    rows = []
    for name, speed in COPIES_PER_CORE.items():
        hours = VOXCELEB2_HOURS / speed
        small = ASVSPOOF2019_HOURS / speed
        disk = terabytes(VOXCELEB2_HOURS)
        rows.append([name, shown(hours), dollars(hours * prices.core), f"{disk:.2f}", shown(small)])
    header = ["vocoder", "VoxCeleb2: core-hours", "USD", "TB", "ASVspoof2019 LA: core-hours"]
    return markdown(header, rows)


def training(prices: Prices) -> list[str]:
    """Stage 1 as published, on one H200."""
    steps = STAGE1_EPOCHS * VOXCELEB2_UTTERANCES / STAGE1_CROPS
    rows = []
    for name, kinds in STEP_ON_H200.items():
        for kind, seconds in kinds.items():
            hours = steps * seconds / 3600
            rows.append([name, kind, f"{1000 * seconds:.1f}", shown(hours), price(hours, prices)])
    for name, seconds in FROM_FILES_ON_H200.items():
        hours = steps * seconds / 3600
        kind = "bfloat16, compiled"
        rows.append([name, kind, f"{1000 * seconds:.1f}", shown(hours), price(hours, prices)])
    return markdown(["network", "precision", "ms a step", "card-hours", "USD"], rows)


def price(hours: float, prices: Prices) -> str:
    """Return the price of hours of a card."""
    return dollars(hours * prices.card)


def embedding(prices: Prices) -> list[str]:
    """Embeddings of whole corpora."""
    rows = []
    for corpus in CORPORA:
        for name in BYTES_PER_EMBEDDING:
            core = EMBEDDING_PER_CORE.get(name)
            card = EMBEDDING_ON_H100.get(name)
            cells = ["-", "-", "-", "-"]
            if core:
                cells[:2] = [shown(corpus.hours / core), dollars(corpus.hours / core * prices.core)]
            if card:
                cells[2:] = [shown(corpus.hours / card), price(corpus.hours / card, prices)]
            size = corpus.utterances * BYTES_PER_EMBEDDING[name] / 1e9
            rows.append([corpus.name, name, *cells, f"{size:.2f}"])
    header = ["corpus", "network", "core-hours", "USD", "H100-hours", "USD", "GB of embeddings"]
    return markdown(header, rows)


def disk(prices: Prices) -> list[str]:
    """Disk space of corpora and copies as FLAC."""
    rows = []
    for corpus in CORPORA:
        size = terabytes(corpus.hours)
        rows.append(
            [corpus.name, f"{corpus.utterances:,}", shown(corpus.hours), f"{size:.3f}"]
            + [dollars(size * prices.terabyte)]
        )
    return markdown(["corpus", "utterances", "hours", "TB as FLAC", "USD a month"], rows)


TABLES = {
    "Corpora on the disk": disk,
    "Copies": copies,
    "Stage 1 on one H200": training,
    "Embeddings": embedding,
}


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core-hour", type=float, default=CORE_HOUR)
    parser.add_argument("--card-hour", type=float, default=CARD_HOUR)
    parser.add_argument("--terabyte-month", type=float, default=TERABYTE_MONTH)
    options = parser.parse_args(arguments)
    prices = Prices(options.core_hour, options.card_hour, options.terabyte_month)
    for title, table in TABLES.items():
        print(f"### {title}\n")
        print("\n".join(table(prices)) + "\n")


if __name__ == "__main__":
    main()
