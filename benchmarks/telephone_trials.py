"""Adds voiceprints that were enrolled over the telephone to development trials: telephone_trials.py
UTTERANCES ENROLMENTS TRIALS OUT [--codecs amr mulaw].

UTTERANCES and TRIALS are those of sasv synthesize with these codecs, and perhaps with others. For
each speaker and codec, copies of up to three of the speaker's target utterances become the
enrolment SPEAKER~CODEC. It is tested against the speaker's other target utterances and the
nontarget utterances of the speaker's trials, each as it is and through every codec in UTTERANCES.
OUT/enrolments.tsv and OUT/trials.tsv contain the original rows as well.
"""

import argparse
from pathlib import Path

from sasv.tables import (
    NONE,
    Enrolments,
    Table,
    Trials,
    Utterances,
    load_enrolments,
    load_trials,
    load_utterances,
)

ENROLMENTS = 3
"""Recordings of a voiceprint, or half of the speaker's target utterances if there are fewer."""


def telephone_trials(
    utterances: Utterances, enrolments: Enrolments, trials: Trials, codecs: list[str]
) -> tuple[Table, Table]:
    """Return the enrolments and the trials, each with what is added. Utterances that were not
    copied with all codecs are left out.
    """
    table = utterances.table
    codec_of = dict(zip(utterances.ids, table.texts("codec")))
    heard = [codec for codec in dict.fromkeys(codec_of.values()) if codec != NONE]
    copies = {
        (source, codec): name
        for name, source, codec in zip(utterances.ids, table.texts("source"), table.texts("codec"))
    }
    spoken: dict[tuple[str, str], list[str]] = {}
    texts = trials.table.texts
    rows = list(zip(texts("speaker"), texts("utterance"), texts("label"), texts("attack")))
    for speaker, utterance, label, _ in rows:
        copied = all((utterance, codec) in copies for codec in (*heard, *codecs))
        if label != "spoof" and codec_of[utterance] == NONE and copied:
            spoken.setdefault((speaker, label), []).append(utterance)
    people = [
        (name, ",".join(own)) for name, own in zip(enrolments.speakers, enrolments.utterances)
    ]
    for (speaker, label), own in list(spoken.items()):
        count = min(ENROLMENTS, len(own) // 2)
        if label != "target" or not count:
            continue
        tested = {"target": own[count:], "nontarget": spoken.get((speaker, "nontarget"), [])}
        for codec in codecs:
            name = f"{speaker}~{codec}"
            people.append((name, ",".join(copies[one, codec] for one in own[:count])))
            for kind, sources in tested.items():
                for source in sources:
                    through = [copies[source, other] for other in heard]
                    rows += [(name, one, kind, NONE) for one in (source, *through)]
    return (
        Table.build(dict(zip(("speaker", "utterances"), zip(*people))), "enrolments"),
        Table.build(dict(zip(("speaker", "utterance", "label", "attack"), zip(*rows))), "trials"),
    )


def main() -> None:
    """Read the tables, and write the new ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("utterances", "enrolments", "trials", "out"):
        parser.add_argument(name)
    parser.add_argument("--codecs", nargs="+", default=["amr", "mulaw"])
    options = parser.parse_args()
    enrolments, trials = telephone_trials(
        load_utterances(options.utterances),
        load_enrolments(options.enrolments),
        load_trials(options.trials),
        options.codecs,
    )
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    enrolments.save(out / "enrolments.tsv")
    trials.save(out / "trials.tsv")


if __name__ == "__main__":
    main()
