"""sasv enrol."""

import logging
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from sasv.audio import AUTO
from sasv.commands._loading import load_any
from sasv.core.errors import SasvError
from sasv.core.options import Options, Range
from sasv.runtime import Verifier
from sasv.store import VoiceprintStore
from sasv.store.keys import read_key
from sasv.store.record import SECONDS_A_DAY, check_name
from sasv.weights.catalogue import DEFAULT

logger = logging.getLogger("sasv")


@dataclass
class EnrolOptions(Options):
    """Enrol a speaker in a store of voiceprints. A voiceprint of the same label is replaced.

    Args:
        store: the store (see sasv store create).
        speaker: name of the speaker.
        recordings: one or more recordings of the speaker; audio is not kept.
        model: checkpoint, or ONNX file that sasv export wrote; by default the model that comes
            with sasv.
        key: file with the key of the store; by default the key in the environment variable
            SASV_STORE_KEY.
        tenant: customer to whom the speaker belongs.
        label: which of the speaker's voiceprints it is, such as headset or phone.
        consent: note on the consent of the speaker.
        days: days after which the voiceprint is deleted; by default it is kept until it is deleted.
        more: add the recordings to the voiceprint of this label instead of replacing it; its
            consent and expiry stay as they are.
        duplicates: what to do if the voice is already enrolled under another name: refuse it, or
            only report it.
        channel: channel to use of recordings with several (see sasv verify).
        device: cpu, cuda, or auto.
    """

    store: str
    speaker: str
    recordings: list[str]
    model: str = DEFAULT
    key: str = ""
    tenant: str = "default"
    label: str = ""
    consent: str = ""
    days: Annotated[float | None, Range(0.001, 36_500)] = None
    more: bool = False
    duplicates: Literal["refuse", "report"] = "refuse"
    channel: str = AUTO
    device: str = "auto"


def enrol(options: EnrolOptions) -> dict[str, Any]:
    """Enrol a speaker; return what was stored, and other speakers with the same voice.

    Raises:
        DuplicateVoice: the voice is already enrolled under another name.
        SasvError: a recording contains too little speech, or the speaker opted out.
    """
    if not options.recordings:
        raise SasvError(
            "sasv enrol needs at least one recording: sasv enrol STORE SPEAKER RECORDING..."
        )
    if options.more and (options.consent or options.days is not None):
        raise SasvError(
            "--more does not change the consent and the expiry of a voiceprint; leave out "
            "--consent and --days"
        )
    check_name("speaker", options.speaker)
    store = VoiceprintStore(options.store, read_key(options.key), create=False)
    try:
        return _enrol(store, options)
    finally:
        store.close()


def _enrol(store: VoiceprintStore, options: EnrolOptions) -> dict[str, Any]:
    verifier = Verifier(load_any(options.model, options.device, options.channel))
    voiceprint = verifier.enrol(options.recordings, options.speaker)
    tenant = options.tenant
    refuse = options.duplicates == "refuse"
    refusing = verifier.decider if refuse else None
    # The store itself looks for duplicates if it has to refuse them.
    found = [] if refuse else store.duplicates(voiceprint, verifier.decider, tenant)
    if options.more:
        kept = [one for one in store.of(options.speaker, tenant) if one.label == options.label]
        if not kept:
            raise SasvError(
                f"{options.speaker}: there is no voiceprint to which recordings could be added; "
                "leave out --more"
            )
        stored = store.extend(kept[0].id, voiceprint, refusing)
    else:
        stored = store.add(
            voiceprint,
            tenant,
            options.label,
            options.consent,
            None if options.days is None else store.clock() + SECONDS_A_DAY * options.days,
            refusing,
        )
    for reason in verifier.decider.limits.disagreements(stored.voiceprint.recordings):
        logger.warning(f"warning: {reason.text}")
    for one in found:
        logger.warning(f"warning: this voice is already enrolled as {one.speaker}")
    values = {name: value for name, value in stored.to_dict().items() if name != "voiceprint"}
    return values | {"duplicates": [asdict(one) for one in found]}
