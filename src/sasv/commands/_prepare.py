"""sasv prepare."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from sasv.audio import AUTO, check_channel
from sasv.core.errors import SasvError, listed
from sasv.core.options import Options
from sasv.core.registry import listing
from sasv.corpora import CORPORA
from sasv.corpora.base import MIN_SPEECH, Prepared, write_tables

logger = logging.getLogger("sasv")


@dataclass
@listing(corpora=CORPORA)
class PrepareOptions(Options):
    """Check a corpus folder and write its tables.

    Args:
        corpus: one of {corpora}. lhotse is a manifest (cuts, or recordings and supervisions) or a
            folder of them, huggingface a dataset of Parquet files or from save_to_disk, kaldi a
            data folder with wav.scp and utt2spk, folder has one subfolder for each speaker, table
            is a table of your own, and copies is copy-synthesised speech with its list.
        folder: folder of the corpus, as unpacked.
        out: output folder, for utterances.tsv, enrolments_PART.tsv, and trials_PART.tsv.
        protocol: list of the copies (corpus copies); by default the only list in the folder.
        columns: columns of a dataset of Hugging Face if they have unusual names, for instance
            --columns.speaker reader; also audio, utterance, label, attack, and others.
        allow_missing: leave out missing and unreadable files instead of failing.
        seconds: read the header of every file for the column seconds, which also checks the files;
            a file whose header does not give its length is decoded once.
        channel: channel to use of recordings with several, written into the table: mean, loudest,
            or a number counted from 0; auto takes the mean, or the loudest channel where the
            channels cancel each other or only one of them is not silent.
        check_speech: measure the speech in each recording for the column speech_seconds (this reads
            every file), and report recordings with too little of it.
    """

    corpus: str
    folder: str
    out: str
    protocol: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    allow_missing: bool = False
    seconds: bool = True
    channel: str = AUTO
    check_speech: bool = False


def prepare(options: PrepareOptions) -> Prepared:
    """Check a corpus and write its tables. Raises SasvError, which says what is missing."""
    reader = CORPORA.get(options.corpus)
    if not Path(options.folder).exists():
        raise SasvError(f"{options.folder}: there is no such folder; check the path")
    if options.protocol and options.corpus != "copies":
        raise SasvError(
            f"--protocol can only be used with the corpus copies; {options.corpus} contains its "
            "own lists"
        )
    if options.columns and options.corpus != "huggingface":
        raise SasvError(
            f"--columns can only be used with the corpus huggingface, not with {options.corpus}"
        )
    check_channel(options.channel)
    given: tuple[Path | dict[str, str], ...] = ()
    if options.protocol:
        given = (Path(options.protocol),)
    elif options.columns:
        given = (options.columns,)
    lists = reader(Path(options.folder), *given)
    for note in lists.notes:
        logger.info(note)
    result = write_tables(
        lists,
        Path(options.out),
        options.allow_missing,
        options.seconds,
        options.channel,
        options.check_speech,
    )
    if result.speechless:
        named = listed(result.speechless, 3)
        logger.info(
            f"{len(result.speechless)} recordings contain less than {MIN_SPEECH} s of speech "
            f"({named}); they have a low speech_seconds in {result.utterances.name}"
        )
    trials = ", ".join(path.name for path in result.trials.values()) or "no trials"
    logger.info(
        f"{result.utterances} ({len(lists.utterances) - result.missing - result.unreadable} "
        f"utterances); {trials}"
    )
    return result
