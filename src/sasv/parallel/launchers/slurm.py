"""Runs shards as a job array of SLURM, submitted by submitit (the extra ``sasv[submitit]``).

``squeue`` tells whether a job still exists, because ``sacct``, which submitit uses, needs an
accounting database that small clusters do not have.
"""

import logging
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sasv.core.errors import MissingExtra, SasvError, reason_of
from sasv.core.files import read_json, write_json
from sasv.parallel.launchers.base import Launcher, Shards

logger = logging.getLogger("sasv")

RETRIES = 5
"""Number of times that a shard is submitted again if its job ends without a result. SLURM itself
requeues the jobs of a lost machine, and jobs whose time is over requeue themselves.
"""

MOST_TIMEOUTS = 100
DEFAULT_TIME = "04:00:00"
POLL_SECONDS = 2.0
LONGEST_POLL_SECONDS = 30.0
GONE_POLLS = 3
"""A job without a result counts as lost after it was absent from the queue in this many polls,
because a shared disk may show a result some seconds late.
"""

RAISED = re.compile(r"[\w.]+(Error|Exception|Interrupt|Exit)\b.*")

OF_SUBMITIT = {"array_parallelism": int}


class Slurm(Launcher):
    """Runs shards as a job array. The settings are options of ``sbatch``, and
    ``array_parallelism``, the number of shards that run at the same time.
    """

    def run(
        self, shards: Shards, settings: Mapping[str, str], logs: Path
    ) -> Iterator[tuple[int, str]]:
        """Run all shards. Yield each when it ends, with the reason if it failed, or ""."""
        try:
            import submitit
        except ImportError as error:
            raise MissingExtra("submitit", "submitit", "--launcher slurm") from error
        logs = logs.absolute()
        try:
            executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=MOST_TIMEOUTS)
        except RuntimeError as error:
            raise SasvError(
                "--launcher slurm: this machine has no srun; run the command on a machine that "
                "submits jobs"
            ) from error
        executor.update_parameters(**_parameters(settings))
        _cancel_earlier(logs)
        jobs: dict[int, Any] = {}
        tries = dict.fromkeys(range(shards.count), 0)
        try:
            _submit(executor, shards, list(tries), jobs, logs)
            yield from self._results(executor, shards, jobs, tries, logs)
        finally:
            if jobs:
                _cancel({job.job_id.partition("_")[0] for job in jobs.values()})
            (logs / "arrays.json").unlink(missing_ok=True)

    def _results(
        self, executor: Any, shards: Shards, jobs: dict[int, Any], tries: dict[int, int], logs: Path
    ) -> Iterator[tuple[int, str]]:
        absent: dict[str, int] = {}
        pause = POLL_SECONDS
        while jobs:
            time.sleep(pause)
            pause = min(1.2 * pause, LONGEST_POLL_SECONDS)
            queued = _queued({job.job_id.partition("_")[0] for job in jobs.values()})
            lost = []
            for number, job in list(jobs.items()):
                if _has_result(job):
                    del jobs[number]
                    yield number, _reason(job)
                elif queued is not None and job.job_id not in queued:
                    absent[job.job_id] = absent.get(job.job_id, 0) + 1
                    if absent[job.job_id] < GONE_POLLS:
                        continue
                    tries[number] += 1
                    del jobs[number]
                    if tries[number] > RETRIES:
                        yield number, f"its jobs ended without a result; see {job.paths.stderr}"
                    else:
                        logger.warning(
                            f"shard {number + 1}/{shards.count}: its job {job.job_id} ended "
                            "without a result; submitted again"
                        )
                        lost.append(number)
            if lost:
                _submit(executor, shards, lost, jobs, logs)
                pause = POLL_SECONDS


def _parameters(settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings as parameters of submitit. All but a few are passed on to sbatch."""
    given = {name.replace("-", "_"): value for name, value in settings.items()}
    limit = given.pop("time", DEFAULT_TIME)
    parameters: dict[str, Any] = {"time": minutes_of(limit), "job_name": "sasv"}
    for name, kind in OF_SUBMITIT.items():
        if name in given:
            try:
                parameters[name] = kind(given.pop(name))
            except ValueError as error:
                raise SasvError(f"--launcher-options.{name}: {error}") from error
    parameters["additional_parameters"] = {
        name.replace("_", "-"): True if value.lower() == "true" else value
        for name, value in given.items()
    }
    return parameters


def minutes_of(text: str) -> int:
    """Return the minutes of a time in one of the forms of sbatch: minutes, ``M:S``, ``H:M:S``,
    ``D-H``, and ``D-H:M:S``.

    Raises:
        SasvError: the text has none of these forms.
    """
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if len(parts) > 3 or not all(part.isdigit() for part in [*parts, *([days] if dash else [])]):
        raise SasvError(
            f"--launcher-options.time {text}: this is not a time; write it as 02:00:00 or "
            "1-00:00:00"
        )
    numbers = [int(part) for part in parts]
    if dash:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        minutes, seconds = (*numbers, 0)[:2]
        hours = 0
    total = (int(days or 0) * 24 + hours) * 60 + minutes + (1 if seconds else 0)
    return max(total, 1)


def _submit(
    executor: Any, shards: Shards, numbers: list[int], jobs: dict[int, Any], logs: Path
) -> None:
    """Submit some shards as one array, and record its number."""
    try:
        submitted = executor.map_array(shards, numbers)
    except Exception as error:  # submitit reports failures of sbatch with its own exceptions
        raise SasvError(f"--launcher slurm: sbatch refuses the jobs: {reason_of(error)}") from error
    jobs.update(zip(numbers, submitted))
    arrays = sorted({job.job_id.partition("_")[0] for job in jobs.values()})
    write_json(logs / "arrays.json", {"arrays": arrays})
    logger.info(f"submitted {len(numbers)} shards as {submitted[0].job_id}; logs in {logs}")


def _cancel_earlier(logs: Path) -> None:
    """Cancel jobs that an earlier, killed run left in the queue, because they would do the same
    work.
    """
    kept = logs / "arrays.json"
    if not kept.exists():
        return
    earlier = read_json(kept, {"arrays": list})["arrays"]
    _cancel({str(array) for array in earlier})
    for _ in range(60):
        if not _queued({str(array) for array in earlier}):
            return
        time.sleep(1)


def _cancel(arrays: set[str]) -> None:
    subprocess.run(["scancel", *sorted(arrays)], capture_output=True, check=False)


def _queued(arrays: set[str]) -> set[str] | None:
    """Return the waiting and running jobs of some arrays, as ``ARRAY_TASK`` (and ``JOB`` for a job
    that is not an array), or None if the queue cannot be queried at the moment.
    """
    found: set[str] = set()
    for array in sorted(arrays):
        asked = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%A|%F_%K", "--jobs", array],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode and "Invalid job id" not in asked.stderr:
            return None
        for line in asked.stdout.split():
            found.update(line.split("|"))
    return found


def _has_result(job: Any) -> bool:
    folder = job.paths.folder
    list(folder.iterdir())  # this makes a shared disk refresh its view of the folder
    return bool(job.paths.result_pickle.exists())


def _reason(job: Any) -> str:
    """Return the reason why the shard of a finished job failed, or "" if it did not."""
    try:
        return str(job.result())
    except Exception as error:  # the exception of the job, as text with its traceback
        raised = [line for line in str(error).splitlines() if RAISED.fullmatch(line)]
        return f"{(raised or [reason_of(error)])[-1]}; see {job.paths.stderr}"
