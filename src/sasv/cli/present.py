"""Text that the command line prints for the result of each command.

A command returns a result, for which this module makes the text that is printed, or the JSON with
``--json``. A command without an entry prints nothing on standard output; its messages go to
standard error.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Presenter(NamedTuple):
    """How the command line presents a command.

    Attributes:
        after: (result, options) -> text to print; an empty text prints nothing.
        before: options -> text to print before the command runs.
    """

    after: Callable[[Any, Any], str]
    before: Callable[[Any], str] | None = None


def info_text(result: Mapping[str, Any], options: Any) -> str:
    """Return plain values as JSON."""
    return json.dumps(result, indent=1, ensure_ascii=False)


def models_text(rows: list[dict[str, Any]], options: Any) -> str:
    """Return the list of named weights as a table, or as JSON."""
    if options.json:
        return json.dumps(rows, indent=1, ensure_ascii=False)
    header = ("name", "encoder", "trained on", "published", "MB", "licence", "local", "source")
    lines = [header]
    for row in rows:
        published = "-" if row.get("published") is None else f"{row['published']:.2f}%"
        if row.get("voxceleb1_o") is not None:
            published = f"{row['voxceleb1_o']:g}% VoxCeleb1-O"
        size = f"{row['megabytes']:.0f}" if row.get("megabytes") else "-"
        lines.append(
            (
                row["name"],
                row.get("encoder", "-"),
                row.get("train_set", "-"),
                published,
                size,
                row.get("licence", "in its card"),
                "yes" if row["path"] else "no",
                row["source"],
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    ]
    note = (
        "published: SASV-EER on the ASVspoof2019 LA evaluation, or the EER on VoxCeleb1-O. "
        "To download weights: sasv download NAME. To use them: --model NAME."
    )
    return "\n".join([*shown, "", note])


def verify_text(result: Mapping[str, Any], options: Any) -> str:
    """Return a decision as one line or as JSON. Without a verdict, there is no line, because the
    error states the reason.
    """
    if options.json:
        return json.dumps(result, ensure_ascii=False)
    score = result["score"]
    if score is None:
        return ""
    text = f"{result['outcome'].replace('_', ' ')}: score {score:.4f}"
    threshold = result["threshold"]
    if threshold is not None:
        text += f" {'>=' if score >= threshold else '<'} threshold {threshold:.4f}"
    if "llr" in result:
        of_what = ""
        if "spoof_llr" in result:
            of_what = (
                f" (speaker {result['speaker_llr']:.2f}, bona fide speech "
                f"{result['spoof_llr']:.2f})"
            )
        text += (
            f"; LLR {result['llr']:.2f}{of_what}, threshold {result['llr_threshold']:.2f} for "
            f"the costs {result['costs']}"
        )
    return text


def detect_text(result: list[dict[str, Any]], options: Any) -> str:
    """Return the verdict on each recording in a line, or all of them as JSON."""
    if options.json:
        return json.dumps(result, ensure_ascii=False)
    lines = []
    for one in result:
        line = f"{one['recording']}: {one['outcome']}"
        if one["spoof_llr"] is not None:
            line += (
                f": LLR of bona fide speech {one['spoof_llr']:.2f}, bona fide from "
                f"{one['llr_threshold']:.2f}"
            )
        lines.append("; ".join([line, *(reason["text"] for reason in one["reasons"])]))
    if result:
        lines.append(f"costs {result[0]['costs']}")
    return "\n".join(lines)


def evaluate_text(result: Mapping[str, Any], options: Any) -> str:
    """Return the metrics of an evaluation; processes that only helped to embed have none."""
    from sasv.report.text import format_metrics, format_outcomes

    if not result:
        return ""
    text = format_metrics(dict(result))
    if "llr" in result:
        text += f"\n\nof the column llr:\n{format_metrics(result['llr'])}"
    if "outcomes" in result:
        text += f"\n\n{format_outcomes(result['outcomes'])}"
    return text


def metrics_text(result: Mapping[str, Any], options: Any) -> str:
    """Return metrics, and the paired test of two systems, as tables or as JSON."""
    from sasv.report.text import format_differences, format_metrics

    if options.json:
        return json.dumps(result, indent=1)
    text = format_metrics(dict(result))
    if options.against:
        text += "\n" + format_differences(
            result["against"], options.scores, options.against, options.resample
        )
    return text


def reproduction_text(result: Any, options: Any) -> str:
    """Return the table of a reproduction, or the plan of a dry run."""
    return str(result.text)


def demo_opening(options: Any) -> str:
    """Return the introduction of the demonstration."""
    from sasv.commands._demo import opening

    return opening(options)


def export_text(result: Mapping[str, Any], options: Any) -> str:
    """Return a description of the export: the file, the comparison with PyTorch, and the error
    rates.
    """
    if options.sherpa:
        return (
            f"{result['out']}: for sherpa-onnx, from 80 Kaldi filter banks on; largest difference "
            f"from PyTorch {result['distance']:.1e} of the length of an embedding\nsherpa-onnx "
            "computes the features from 20 Hz to 7600 Hz; where the model was trained on others, "
            "its embeddings differ. Choose a new threshold."
        )
    proof = result["proof"]
    lines = [
        f"{result['out']}: {result['precision']}, opset {result['opset']}, "
        f"{result['megabytes']:.1f} MB",
        f"PyTorch {proof['torch']} against ONNX Runtime {proof['onnxruntime']} on recordings of "
        f"{', '.join(f'{seconds:g}' for seconds in proof['seconds'])} s, alone and in a batch:",
        f"  lowest cosine {proof['cosine']:.7f}, largest difference of an entry "
        f"{proof['largest_difference']:.1e}, of the whole embedding {proof['distance']:.1e} of its "
        "length",
    ]
    if proof["cm_difference"] is not None:
        lines.append(f"  largest difference of a spoof score {proof['cm_difference']:.1e}")
    for name, before in result.get("before", {}).items():
        after = result["after"][name]
        if before is not None and after is not None:
            kind = name.removesuffix("_eer").upper()
            lines.append(f"  {kind}-EER {before:.2f} % before, {after:.2f} % after")
    return "\n".join(lines)


def runtime_text(result: Mapping[str, Any], options: Any) -> str:
    """Return speed and memory by threads as a table, or as JSON."""
    if options.json:
        return json.dumps(result, indent=1)
    lines = ["threads  real-time factor  latency of 3 s   loaded  first score (CPU)  memory"]
    for row in result["rows"]:
        memory = "-" if row["memory_mb"] is None else f"{row['memory_mb']:.0f} MB"
        lines.append(
            f"{row['threads']:7}  {row['real_time_factor']:16.4f}  {row['latency_ms']:11.1f} ms  "
            f"{row['start_ms']:4.0f} ms  {row['first_score_cpu_ms']:14.0f} ms  {memory}"
        )
    return "\n".join(lines)


def stress_text(result: Any, options: Any) -> str:
    """Return the weakest points of a stress test; a shard that is not the last has none."""
    from sasv.stress.pages import summary

    return "" if result is None else summary(result)


PRESENTERS = {
    "detect": Presenter(detect_text),
    "benchmark-runtime": Presenter(runtime_text),
    "demo": Presenter(reproduction_text, demo_opening),
    "enrol": Presenter(info_text),
    "evaluate": Presenter(evaluate_text),
    "export": Presenter(export_text),
    "info": Presenter(info_text),
    "keys": Presenter(info_text),
    "metrics": Presenter(metrics_text),
    "models": Presenter(models_text),
    "reproduce": Presenter(reproduction_text),
    "store": Presenter(info_text),
    "stress": Presenter(stress_text),
    "verify": Presenter(verify_text),
}
