"""ONNX Runtime, which an extra installs."""

import os
from typing import Any

from sasv.core.errors import MissingExtra


def onnx_runtime() -> Any:
    """Return the module ``onnxruntime``. Raises MissingExtra if it is not installed.

    Since version 1.32 the module sends telemetry to its maker. Only an environment variable that is
    set before the import prevents this; an operator who wants telemetry sets it to 0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "runtime", "an exported model") from error
    return onnxruntime


def new_session(model: str | bytes, threads: int = 0) -> Any:
    """Start a session on the CPU, given a file or its bytes."""
    runtime = onnx_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
