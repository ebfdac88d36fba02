"""sasv push."""

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasv.checkpoints import Specification, load_checkpoint, save_checkpoint
from sasv.core.errors import MissingExtra, SasvError
from sasv.core.files import read_bytes, read_json, write_text
from sasv.core.options import Options
from sasv.report.markup import escape_markdown, plain
from sasv.report.text import is_metric, show, title
from sasv.scores.scoring import described
from sasv.weights.place import HUB_FILE, is_hub_id

logger = logging.getLogger("sasv")


@dataclass
class PushOptions(Options):
    """Publish a model with its card, so that ``--model org/name`` works elsewhere after
    ``sasv download org/name``.

    Args:
        model: checkpoint.
        repository: identifier ``org/name`` on the hub.
        card: model card in Markdown (data, training, results, limits); by default one is written
            from the specification.
        metrics: metrics.json that sasv evaluate wrote, for the results in the model card.
        licence: licence of a model that does not state its own.
        private: make the repository private.
        out: folder to write the files into, instead of publishing them.
    """

    model: str
    repository: str
    card: str = ""
    metrics: str = ""
    licence: str = ""
    private: bool = False
    out: str = ""


def push(options: PushOptions) -> str:
    """Publish a model; return its address, or the folder. Raises SasvError if it may not or cannot
    be published.
    """
    if not is_hub_id(options.repository):
        raise SasvError(f"{options.repository}: the repository must have the form org/name")
    checkpoint = load_checkpoint(options.model)
    specification = checkpoint.specification
    if options.licence:
        specification.licence = options.licence
    if specification.licence in ("", "unknown"):
        raise SasvError(
            f"{options.model}: the model states no licence; give the one under which it may be "
            "used with --licence cc-by-4.0"
        )
    remedy = "give the metrics.json of sasv evaluate"
    figures: dict[str, Any] = read_json(options.metrics, remedy=remedy) if options.metrics else {}
    text = (
        read_card(options.card)
        if options.card
        else card(options.repository, specification, figures)
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.out or temporary)
        save_checkpoint(folder / HUB_FILE, checkpoint)
        write_text(folder / "README.md", front_matter(specification) + text)
        if options.metrics:
            shutil.copyfile(options.metrics, folder / "metrics.json")
        if options.out:
            logger.info(f"{folder}: contains the files to publish; nothing was uploaded")
            return str(folder)
        return upload(options, folder)


def upload(options: PushOptions, folder: Path) -> str:
    """Upload the files; return the address."""
    try:
        from huggingface_hub import HfApi, errors
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", "the Hugging Face hub") from error
    try:
        api = HfApi()
        api.create_repo(options.repository, private=options.private, exist_ok=True)
        api.upload_folder(
            repo_id=options.repository,
            folder_path=folder,
            commit_message="Model of sasv, with its card",
        )
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SasvError(
            f"{options.repository}: the hub refused the upload ({reason}); log in with: hf auth "
            "login"
        ) from error
    except Exception as error:  # transport errors, which differ between versions of the client
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SasvError(
            f"{options.repository}: the hub does not answer ({reason}); check the network "
            "and try again"
        ) from error
    address = f"https://huggingface.co/{options.repository}"
    logger.info(f"published: {address}")
    return address


def front_matter(specification: Specification) -> str:
    """Return the header that the hub reads. It is written as YAML, so that no text from a
    checkpoint can add a line.
    """
    import yaml

    values = {
        "license": plain(specification.licence).lower(),
        "library_name": "sasv",
        "tags": ["speaker-verification", "anti-spoofing", "sasv"],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False, width=1000)}---\n\n"


def read_card(path: str) -> str:
    """Return a card that the user wrote. Raises SasvError if it is not UTF-8 text."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SasvError(
            f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start})"
        ) from error


def card(name: str, specification: Specification, figures: dict[str, Any]) -> str:
    """Return a card that describes the model, its training, and its results."""
    escaped = escape_markdown
    sizes = ", ".join(f"{key} {value}" for key, value in specification.encoder_options.items())
    parts = [
        f"# {name}",
        "One embedding that accepts the claimed speaker and rejects other people and synthetic "
        "copies "
        "(spoofing-aware speaker verification), made by sasv.",
        f"* encoder: {escaped(specification.encoder)} ({escaped(sizes)}); "
        f"{specification.sample_rate} Hz",
        f"* score: {escaped(described(specification.scoring))}",
        f"* classes: {len(specification.classes)}"
        + (
            ", the last one spoofed speech"
            if specification.spoof_index is not None
            else ", no spoofed speech"
        ),
        f"* threshold: {specification.threshold} "
        f"({escaped(specification.threshold_source or 'none was chosen')})",
        f"* licence: {escaped(specification.licence)}",
        "* training: "
        + escaped(", ".join(f"{key} {value}" for key, value in specification.training.items())),
    ]
    text = "\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:]) + "\n"
    names = [
        key
        for key in figures
        if is_metric(key) and figures[key] is not None and not key.endswith("_nearest")
    ]
    if names:
        spans = figures.get("intervals") or {}
        rows = []
        for key in names:
            span = spans.get(key)
            shown = f"{show(key, span[0])} to {show(key, span[1])}" if span else "-"
            rows.append(f"| {title(key)} | {show(key, figures[key])} | {shown} |")
        counts = ", ".join(
            f"{figures[key]} {key}" for key in ("targets", "nontargets", "spoofs") if key in figures
        )
        text += (
            f"\n## Results ({counts})\n\n| metric | value | 95 % interval |\n|---|---|---|\n"
            + "\n".join(rows)
            + "\n"
        )
    return (
        text + f"\n## Use\n\n```\nsasv download {name}\nsasv verify ENROL.wav TEST.wav --model "
        f"{name}\n```\n"
    )
