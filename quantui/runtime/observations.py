"""The file of observations: a JSON line for each load of a model, in quantui's home.

It is only ever appended to, and shortened to its newest half when it has grown; several quantui may do so at
once. Losing it costs nothing but the corrections, so no failure here fails a run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

from quantui.domain.fitting.calibration import (
    Calibration,
    Expectation,
    Figures,
    Load,
    Observation,
    Outcome,
    calibration_for,
    machine_key,
    own_runs,
)
from quantui.runtime.paths import home

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from quantui.domain.hardware import Gpu, HardwareReport
    from quantui.domain.performance.speed_evidence import OwnRun

_FORMAT = 1
MOST_BYTES = 1024 * 1024
"""Some 1,500 loads."""
_LATEST = 2.0**37
"""Seconds since the epoch, in the year 6325: what no clock says."""
_LONGEST_LINE = 8192
_WAIT_S = 2.0


def observations_file() -> Path:
    """Where the observations are."""
    return home() / "observations.jsonl"


def append_observation(seen: Observation) -> bool:
    """Keep ``seen``; False where the disk or the permissions do not let it."""
    line = json.dumps({"format": _FORMAT, **asdict(seen)}, separators=(",", ":")).encode() + b"\n"
    if len(line) > _LONGEST_LINE:
        return False
    path = observations_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            _shorten(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                # A line that a crash or a full disk has cut off must not take this one with it.
                if not _ends_whole(path):
                    line = b"\n" + line
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
    except (OSError, TimeoutError):
        return False
    return True


def read_observations() -> tuple[Observation, ...]:
    """All that can be read, oldest first; lines that are damaged or of another quantui are passed over."""
    try:
        raw = observations_file().read_bytes()
    except OSError:
        return ()
    found = []
    for line in raw.splitlines():
        if seen := _parsed(line):
            found.append(seen)
    return tuple(found)


def load_here(
    report: HardwareReport,
    gpus: Sequence[Gpu],
    *,
    engine: str,
    vllm_version: str,
    model: str,
    method: str = "",
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
) -> Load:
    """What would identify a load of ``model`` (a fingerprint) on ``gpus``; without any, on the CPU."""
    return Load(
        machine=machine_key(report, gpus),
        engine=engine,
        vllm_version=vllm_version,
        method=method,
        model=model,
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
    )


def calibration(load: Load) -> Calibration | None:
    """What earlier loads teach about ``load``; see :func:`quantui.domain.fitting.calibration.calibration_for`."""
    return calibration_for(load, read_observations())


def own_speeds(load: Load) -> tuple[OwnRun, ...]:
    """How fast the model of ``load`` answered on its machine, newest first."""
    return own_runs(load, read_observations())


def _shorten(path: Path) -> None:
    try:
        if path.stat().st_size <= MOST_BYTES:
            return
    except FileNotFoundError:
        return
    kept = path.read_bytes()[-MOST_BYTES // 2 :].partition(b"\n")[2]
    partial = path.with_suffix(".partial")
    partial.write_bytes(kept)
    partial.replace(path)


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


@contextlib.contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Hold the lock; raises TimeoutError when another process keeps it."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + _WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _parsed(line: bytes) -> Observation | None:
    """The observation of a line; None when anything in it is not what it must be."""
    try:
        data = json.loads(line)
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            return None
        if data["outcome"] not in get_args(Outcome):
            return None
        return Observation(
            at=_moment(data["at"]),
            expected=_expectation(data["expected"]),
            outcome=data["outcome"],
            measured=_figures(data["measured"]),
            load_seconds=_number(data.get("load_seconds")),
            tokens_per_s=_number(data.get("tokens_per_s")),
            first_token_s=_number(data.get("first_token_s")),
            answer_tokens=_count(data.get("answer_tokens")),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _expectation(data: dict[str, Any]) -> Expectation:
    load, gpus = data["load"], data.get("gpus", [])
    return Expectation(
        load=Load(
            machine=_of(str, load["machine"]),
            engine=_of(str, load["engine"]),
            vllm_version=_of(str, load["vllm_version"]),
            method=_of(str, load["method"]),
            model=_of(str, load["model"]),
            tensor_parallel=_of(int, load["tensor_parallel"]),
            pipeline_parallel=_of(int, load["pipeline_parallel"]),
        ),
        predicted=_figures(data["predicted"]),
        on_cpu=_of(bool, data["on_cpu"]),
        kv_cache_given=_of(bool, data["kv_cache_given"]),
        device_bytes=_count(data.get("device_bytes")),
        max_model_len=_count(data.get("max_model_len")),
        max_num_seqs=_count(data.get("max_num_seqs")),
        model_ref=_of(str, data.get("model_ref", "")),
        gpus=tuple(_of(int, index) for index in _of(list, gpus)),
    )


def _figures(data: dict[str, Any]) -> Figures:
    return Figures(**{key: _count(data.get(key)) for key in Figures.__dataclass_fields__})


def _of(kind: type[Any], value: object) -> Any:  # noqa: ANN401 - of the kind that is asked for
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError
    return value


def _count(value: object) -> int | None:
    return None if value is None else int(_of(int, value))


def _moment(value: object) -> float:
    at = _number(value)
    if at is None or at > _LATEST:
        raise ValueError
    return at


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise ValueError
    return float(value)
