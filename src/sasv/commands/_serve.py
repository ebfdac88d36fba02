"""sasv serve."""

import importlib.util
import logging
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from sasv.core.errors import MissingExtra, SasvError
from sasv.core.files import digest_of_file
from sasv.core.onnx import onnx_runtime
from sasv.core.options import Count, NonNegativeFloat, Options, PositiveFloat, PositiveInt, Range
from sasv.core.version import __version__
from sasv.runtime.model import SUFFIX, OnnxModel
from sasv.service.settings import Settings
from sasv.service.state import ServiceState
from sasv.store import VoiceprintStore
from sasv.store.keys import new_key, read_key
from sasv.weights import resolve, weights_folder
from sasv.weights.catalogue import DEFAULT

logger = logging.getLogger("sasv")

PACKAGES = ("fastapi", "httptools", "uvicorn", "multipart", "prometheus_client", "websockets")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass
class ServeOptions(Options):
    """Serve enrolment, verification, identification, and detection over HTTP, and a page to try
    them.

    The service runs an exported model. The model that comes with sasv, or another checkpoint, is
    exported at the first start, which needs PyTorch. Without --insecure-demo it starts only if the
    store holds an API key (sasv keys create).

    Args:
        store: the store of voiceprints (sasv store create): a file, or
            postgresql://user@host/database; not required with --insecure-demo.
        model: ONNX file that sasv export wrote, or a checkpoint; by default the model that comes
            with sasv.
        key: file with the key of the store; by default the key in the environment variable
            SASV_STORE_KEY.
        host: address on which to listen; with the default, only this machine can connect.
        port: port on which to listen; 0 chooses a free one.
        tls_certificate: file of the TLS certificate, with its chain.
        tls_key: file of the private key of the certificate.
        workers: number of requests that are computed at the same time; 0 means one for each core.
        threads: number of threads for each request; 0 means one for each core.
        queue: number of further requests that may wait; any more are answered with status 503.
        batch: maximum number of recordings of concurrent requests that are embedded together; 1
            embeds each at once.
        batch_wait: milliseconds for which a recording waits for others to form a batch.
        rate: maximum number of requests per second for each API key, on average; 0 sets no limit.
        burst: maximum number of requests of an API key in a burst.
        max_megabytes: maximum size of the body of a request, in MB.
        max_seconds: maximum length of a recording or stream, in seconds.
        body_timeout: seconds within which the body of a request must arrive.
        header_timeout: seconds within which the headers of a request must arrive.
        connections: maximum number of open connections; a further one closes the connection that
            has been idle for longest.
        streams: maximum number of WebSocket streams at the same time.
        enrolment_seconds: seconds of speech that make an enrolment complete.
        grace: seconds to wait for accepted requests when the service stops.
        log_requests: write a line for each request.
        insecure_demo: allow everybody on this machine to do everything without an API key. If no
            store is given, voiceprints are kept in memory only.
    """

    store: str = ""
    model: str = DEFAULT
    key: str = ""
    host: str = "127.0.0.1"
    port: Annotated[int, Range(0, 65535)] = 8000
    tls_certificate: str = ""
    tls_key: str = ""
    workers: Annotated[int, Range(0, 1024)] = 0
    threads: Count = 1
    queue: Count = 64
    batch: Annotated[int, Range(1, 256)] = 1
    batch_wait: Annotated[float, Range(0, 1000)] = 5.0
    rate: NonNegativeFloat = 50.0
    burst: PositiveInt = 100
    max_megabytes: PositiveFloat = 20.0
    max_seconds: Annotated[float, Range(above=0, maximum=3600)] = 120.0
    body_timeout: PositiveFloat = 30.0
    header_timeout: PositiveFloat = 10.0
    connections: PositiveInt = 1000
    streams: PositiveInt = 32
    enrolment_seconds: PositiveFloat = 10.0
    grace: Count = 30
    log_requests: bool = True
    insecure_demo: bool = False

    def settings(self) -> Settings:
        """Return the limits of the service."""
        return Settings(
            max_bytes=round(1e6 * self.max_megabytes),
            max_seconds=self.max_seconds,
            workers=self.workers or os.cpu_count() or 1,
            queue=self.queue,
            batch=self.batch,
            batch_wait=self.batch_wait / 1000,
            rate=self.rate,
            burst=self.burst,
            body_timeout=self.body_timeout,
            buffered_bytes=max(256_000_000, round(2e6 * self.max_megabytes)),
            streams=self.streams,
            enrolment_seconds=self.enrolment_seconds,
            demo=self.insecure_demo,
        )


def serve(options: ServeOptions) -> None:
    """Serve until a signal stops the service."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "serve", "the service")
    onnx_runtime()
    check_access(options)
    from sasv.service.app import create_app, make_service
    from sasv.service.server import Address, listening, make_server, run

    address = Address(
        options.host,
        options.port,
        options.tls_certificate,
        options.tls_key,
        options.connections,
        options.header_timeout,
        options.grace,
    )
    with ExitStack() as stack:
        store, state = opened(options, stack)
        model = OnnxModel(served_model(options.model), options.threads)
        service = make_service(model, store, state, options.settings())
        server = make_server(create_app(service, options.log_requests), address)
        bound = stack.enter_context(listening(address))
        run(server, bound, options.connections)


def check_access(options: ServeOptions) -> None:
    """Refuse options that would give access to more people than intended, or let them read the
    traffic.
    """
    local = options.host in LOOPBACK
    if options.insecure_demo and not local:
        raise SasvError(
            "--insecure-demo allows everybody to do everything, so the service may only listen on "
            f"this machine, not on {options.host}; leave out --host"
        )
    if bool(options.tls_certificate) != bool(options.tls_key):
        raise SasvError("give both --tls-certificate and --tls-key, or neither")
    if not options.insecure_demo and not options.store:
        raise SasvError(
            "sasv serve needs --store, the store of voiceprints; to try the service without one, "
            "use --insecure-demo"
        )
    if not local and not options.tls_certificate:
        logger.warning(
            f"without TLS, anybody who can read the network traffic of {options.host} can read API "
            "keys and speech; give --tls-certificate and --tls-key, or listen on 127.0.0.1 behind "
            "a proxy"
        )


def opened(options: ServeOptions, stack: ExitStack) -> tuple[VoiceprintStore, ServiceState]:
    """Return the store and the state of the service.

    Raises:
        SasvError: there is no API key, without which nobody could use the service.
    """
    path = options.store
    key = read_key(options.key) if path else new_key()
    if not path:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sasv-demo-"))
        path = str(Path(folder) / "voiceprints.db")
    store = VoiceprintStore(path, key, create=not options.store)
    stack.callback(store.close)
    state = ServiceState(store.database)
    if not options.insecure_demo and all(one.revoked is not None for one in state.api_keys()):
        raise SasvError(
            f"{store.path}: the store contains no API key, so nobody could use the service; create "
            f"one with sasv keys create {store.path} --name NAME"
        )
    return store, state


def served_model(model: str) -> str:
    """Return the ONNX file of a model. A checkpoint is exported once, into the folder of downloaded
    weights, and taken from there afterwards.

    Raises:
        SasvError: there is no such model, or a package for the export is not installed.
    """
    if model.endswith(SUFFIX):
        return model
    checkpoint = resolve(model)
    name = f"{digest_of_file(checkpoint)[:32]}-{__version__}{SUFFIX}"
    path = weights_folder() / "exported" / name
    if path.is_file():
        return str(path)
    for package in ("torch", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise SasvError(
                f"{model}: the service runs an exported model; give --model FILE.onnx, made by "
                "sasv export elsewhere, or let the service export this one: pip install "
                '"sasv[export]"'
            )
    from sasv.checkpoints import load_checkpoint
    from sasv.export.export import export_model

    logger.info(f"exporting {model} to {path}; this is done only once")
    path.parent.mkdir(parents=True, exist_ok=True)
    export_model(load_checkpoint(model), str(path))
    return str(path)
