"""Reads corpora in the form in which they are distributed. Each corpus has one file, and one line
here.
"""

from sasv.core.registry import Registry

CORPORA = Registry(
    "corpus",
    {
        "asvspoof2019": "sasv.corpora.asvspoof2019:read",
        "asvspoof5": "sasv.corpora.asvspoof5:read",
        "spoofceleb": "sasv.corpora.spoofceleb:read",
        "voxceleb1": "sasv.corpora.voxceleb1:read",
        "voxceleb2": "sasv.corpora.voxceleb2:read",
        "cnceleb": "sasv.corpora.cnceleb:read",
        "in-the-wild": "sasv.corpora.in_the_wild:read",
        "mlaad": "sasv.corpora.mlaad:read",
        "librispeech": "sasv.corpora.librispeech:read",
        "lhotse": "sasv.corpora.lhotse:read",
        "huggingface": "sasv.corpora.huggingface:read",
        "kaldi": "sasv.corpora.kaldi:read",
        "folder": "sasv.corpora.folder:read",
        "table": "sasv.corpora.own_table:read",
        "copies": "sasv.corpora.copies:read",
    },
    group="sasv.corpora",
)

__all__ = ["CORPORA"]
