"""The labels of utterances and trials."""

NONE = "-"
"""Content of a cell without a value, such as the attack of a bona fide utterance."""

TARGET = "target"
NONTARGET = "nontarget"
SPOOF = "spoof"
BONA_FIDE = "bonafide"
"""Label of genuine speech. Score files of a countermeasure have it in place of target and
nontarget.
"""

UTTERANCE_LABELS = (BONA_FIDE, SPOOF)
TRIAL_LABELS = (TARGET, NONTARGET, SPOOF)
"""The labels in the order of their numbers 0, 1, 2 (see metrics.curve)."""
