"""Loading a table of VoxCeleb2's size (1.09 million rows) against Python's csv module."""

import csv
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import header, is_quick, measure, row
from sasv.tables import load_utterances

ROWS = 1_092_009


def main(words: Sequence[str] | None = None) -> None:
    rows = 2_000 if is_quick(words, __doc__) else ROWS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "utterances.tsv"
        with open(path, "w") as stream:
            stream.write("utterance\tpath\tspeaker\tsplit\tlabel\tattack\tseconds\n")
            for index in range(rows):
                speaker = f"id{index // 182:05}"
                name = f"{speaker}/{index // 20:011x}/{index % 20:05}"
                stream.write(
                    f"{name}\t/data/voxceleb2/dev/aac/{name}.m4a\t{speaker}"
                    f"\tdev\tbonafide\t-\t{4 + index % 16}.064\n"
                )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        header(f"{rows:,} rows, {path.stat().st_size / 1e6:.0f} MB")
        took = measure(lambda: load_utterances(path), 3)
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6

        def all_columns() -> None:
            table = load_utterances(path)
            _ = (table.speakers, table.spoofed, table.seconds)

        everything = measure(all_columns, 3)
        baseline = measure(lambda: list(csv.reader(open(path), delimiter="\t")), 3)  # noqa: SIM115
        row("csv module, lists of strings, unchecked (baseline)", baseline)
        row("load and validate", took, baseline, f"peak {peak:.2f} GB more")
        row("the same with speakers, labels and seconds", everything, baseline)


if __name__ == "__main__":
    main()
