"""Spectrograms of an utterance and its copies, as in docs/vocoders.md.

python benchmarks/plot_vocoders.py UTTERANCE docs/vocoders.png
"""

import sys

from sasv.audio import RATE, read_audio
from sasv.report.plots import plot_spectrograms
from sasv.vocoders import make_vocoder

START, SECONDS = 0.5, 3.0
SHOWN = ("griffin-lim", "source-filter", "world", "cargan", "amr")


def main() -> None:
    wave = read_audio(sys.argv[1])[int(START * RATE) :][: int(SECONDS * RATE)]
    copies = {name: make_vocoder(name)(wave, seed=1) for name in SHOWN}
    plot_spectrograms({"original": wave} | copies, RATE, sys.argv[2])


if __name__ == "__main__":
    main()
