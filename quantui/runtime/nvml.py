"""NVML through nvidia-ml-py, so that nothing it does can crash quantui.

Every call may fail on its own: a function the driver does not have yet, a permission, a GPU that
fell off the bus. A failed call is an unknown value and a remembered reason.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_VARIANTS = (
    ("nvmlDeviceGetMemoryInfo", 0x02000028),
    ("nvmlDeviceGetMemoryInfo", None),
)
"""Function and version, newest first: v2 tells reserved from used, and older drivers lack it.

The version is nvml.h's ``NVML_STRUCT_VERSION(Memory, 2)``: the struct's size, 40, and 2 << 24.
"""


@dataclass(frozen=True)
class Failure:
    """Why a call gave nothing. ``code`` is NVML's return value, None when there is none."""

    code: int | None
    text: str


@dataclass
class Nvml:
    """An initialised NVML. ``failures`` collects the reasons of :meth:`ask` by subject."""

    binding: Any
    failures: dict[str, Failure] = field(default_factory=dict)

    def ask(self, subject: str, *variants: tuple[Any, ...]) -> Any:  # noqa: ANN401 - a ctypes value
        """The first of ``variants`` (function name, arguments) that answers; None if none does.

        The last reason is kept in ``failures[subject]``; that a variant is missing explains nothing
        when another one gave a reason. Names come as nvidia-ml-py's undecorated functions give
        them, as bytes: its decorator raises on a name that is not UTF-8.
        """
        self.failures.pop(subject, None)
        missing = self.code("FUNCTION_NOT_FOUND")
        for name, *arguments in variants:
            try:
                function = getattr(self.binding, name)
                answer = getattr(function, "__wrapped__", function)(*arguments)
            except AttributeError:
                failure = Failure(missing, f"nvidia-ml-py has no {name}")
            except self.binding.NVMLError as error:
                failure = failure_of(error)
            else:
                self.failures.pop(subject, None)
                return answer
            if failure.code != missing or subject not in self.failures:
                self.failures[subject] = failure
        return None

    def ask_text(self, subject: str, *variants: tuple[Any, ...]) -> str | None:
        """:meth:`ask` for a name: bytes or str in, printable text out; an empty one is unknown."""
        answer = self.ask(subject, *variants)
        if isinstance(answer, bytes):
            answer = answer.decode("utf-8", "replace")
        return sanitize(answer).strip() or None if isinstance(answer, str) else None

    def ask_number(self, subject: str, *variants: tuple[Any, ...]) -> int | None:
        """:meth:`ask` for a number; NVML_VALUE_NOT_AVAILABLE (all bits set) is unknown."""
        answer = self.ask(subject, *variants)
        return None if answer is None else known(int(answer))

    def code(self, name: str) -> int | None:
        """The value of ``NVML_ERROR_<name>``."""
        value = getattr(self.binding, f"NVML_ERROR_{name}", None)
        return None if value is None else int(value)

    def for_gpu(self) -> Nvml:
        """The same session with no failures yet."""
        return Nvml(self.binding)


def known(value: int | None) -> int | None:
    """``value``, or None where NVML says "not available" with all bits set (32 or 64)."""
    return None if value in (None, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF) else value


def failure_of(error: Exception) -> Failure:
    """The code and text of an NVMLError."""
    value = getattr(error, "value", None)
    try:
        text = str(error)
    except UnicodeDecodeError:  # from the driver's nvmlErrorString, for codes the binding lacks
        text = f"NVML error {value}"
    return Failure(value if isinstance(value, int) else None, sanitize(text))


@contextmanager
def nvml_session() -> Iterator[Nvml | Failure]:
    """NVML, initialised once and shut down at the end; or why there is none.

    nvidia-ml-py loads the library, ``libnvidia-ml.so.1``. Sessions may nest: NVML counts them.
    """
    try:
        import pynvml
    except ImportError as error:
        yield Failure(None, f"nvidia-ml-py cannot be imported: {error}")
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        yield failure_of(error)
        return
    try:
        yield Nvml(pynvml)
    finally:
        # A driver that went away cannot be shut down, and need not be.
        Nvml(pynvml).ask("shutdown", ("nvmlShutdown",))
