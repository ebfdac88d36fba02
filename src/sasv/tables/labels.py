"""The labels of utterances and trials."""

NONE = "-"
"""Written where a cell has nothing to say (the attack of a bona fide utterance)."""

TARGET = "target"
NONTARGET = "nontarget"
SPOOF = "spoof"
BONA_FIDE = "bonafide"
"""Label of what a countermeasure should accept; its score files have it in place of target and
nontarget.
"""

UTTERANCE_LABELS = (BONA_FIDE, SPOOF)
TRIAL_LABELS = (TARGET, NONTARGET, SPOOF)
"""In the order of the label numbers 0, 1, 2 (see metrics.curve)."""
