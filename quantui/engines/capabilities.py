"""What one vLLM can do, as its own interpreter told it, and whether a command line suits it.

Pure: the probe that asks is :mod:`quantui.runtime.capabilities`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _readable_int(text: str) -> object:
    # vllm/engine/arg_utils.py, human_readable_int: 1k is 1000, 1K is 1024, 25.6k is 25600.
    return float(text[:-1] if text[-1:] in "kKmMgGtT" and text else text)


_TYPES: dict[str, tuple[Callable[[str], object], str]] = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "human_readable_int": (_readable_int, "a whole number, or one such as 32k or 25.6K"),
    "human_readable_int_or_auto": (
        lambda text: text == "auto" or _readable_int(text),
        "a whole number, one such as 32k or 25.6K, or auto",
    ),
}
"""Types that are checked here; the others are vLLM's own parsers, which only it can run."""


@dataclass(frozen=True)
class Method:
    """A quantization method vLLM has registered.

    ``min_capability`` is what its class declares, 75 for 7.5; the real demand can be higher
    (quantui.domain.methods). ``problem`` says why the class could not be asked.
    """

    name: str
    config_class: str | None
    min_capability: int | None
    dtypes: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True)
class Flag:
    """An option of ``vllm serve``, in argparse's terms."""

    options: tuple[str, ...]
    action: str
    type_name: str | None
    optional: bool
    """Takes ``None`` as well."""
    choices: tuple[str, ...] | None
    nargs: int | str | None
    default: Any

    @property
    def takes_value(self) -> bool:
        """Whether a value has to follow: not for switches (0), nor for ``?`` and ``*``."""
        return self.nargs not in (0, "?", "*")


@dataclass(frozen=True)
class Capabilities:
    """One engine's vLLM: versions, platform, plugins, quantization methods, flags."""

    vllm: str
    torch: str
    platform: str
    """The class vLLM chose: ``CpuPlatform``, ``NvmlCudaPlatform`` ..."""
    device: str
    device_capability: tuple[int, int] | None
    plugins: tuple[str, ...]
    methods: tuple[Method, ...]
    flags: tuple[Flag, ...]
    problems: tuple[str, ...]

    @cached_property
    def _by_option(self) -> dict[str, Flag]:
        return {option: flag for flag in self.flags for option in flag.options}

    def supports_method(self, name: str) -> bool:
        """Whether ``--quantization name`` is registered; that it works here is not promised."""
        return any(method.name == name for method in self.methods)

    def method(self, name: str) -> Method | None:
        """The method called ``name``."""
        return next((method for method in self.methods if method.name == name), None)

    def flag(self, option: str) -> Flag | None:
        """The flag for ``--some-option``; underscores count as dashes, as in vLLM's parser."""
        return self._by_option.get(_dashes(option))

    def check_arguments(self, arguments: Mapping[str, object] | Sequence[str]) -> None:
        """Raise for the first argument this vLLM's parser would refuse.

        ``arguments`` is a command line, or a mapping of flag (dashes in front or not) to value:
        True for a switch, False for its ``--no-`` form, a list for several values, None to leave it
        out. Codes: ``vllm.unknown-flag`` with the nearest valid name, ``vllm.bad-value``,
        ``vllm.unknown-method``. Positional arguments are left alone.
        """
        command = as_command_line(arguments) if isinstance(arguments, Mapping) else arguments
        for option, values in _grouped(command):
            self._check(option, values)

    def _check(self, option: str, values: list[str]) -> None:
        flag = self.flag(option)
        dotted = flag is None and "." in option
        if dotted:
            # --limit-mm-per-prompt.image 2 is vLLM's way to set one key of a JSON option.
            flag = self.flag(option.partition(".")[0].rstrip("+"))
        if flag is None:
            raise self._unknown(option)
        if dotted:
            return
        if flag.takes_value and not values:
            raise _bad_value(f"{option} needs a value.", _expected(flag))
        for value in values if flag.nargs in ("+", "*") else values[:1]:
            self._check_value(option, flag, value)

    def _check_value(self, option: str, flag: Flag, value: str) -> None:
        if flag.nargs == 0 or (flag.optional and value == "None"):
            return
        if flag.choices is not None and value not in flag.choices:
            near = difflib.get_close_matches(value, flag.choices, 1, 0.5)
            raise _bad_value(
                f"{option} does not take {value!r}.",
                _expected(flag),
                f"Did you mean {near[0]!r}?" if near else "",
            )
        if flag.type_name in _TYPES:
            try:
                _TYPES[flag.type_name][0](value)
            except ValueError:
                raise _bad_value(f"{option} does not take {value!r}.", _expected(flag)) from None
        if (
            "--quantization" in flag.options
            and not self.supports_method(value)
            and value[:1] != "{"
        ):
            names = [method.name for method in self.methods]
            near = difflib.get_close_matches(value, names, 1, 0.5)
            raise QuantuiError(
                "vllm.unknown-method",
                f"vLLM {self.vllm} has no quantization method {value!r}.",
                f"It has {', '.join(names)}.",
                f"Did you mean {near[0]!r}?" if near else "Choose one of these.",
                ExitCode.DOES_NOT_FIT,
            )

    def _unknown(self, option: str) -> QuantuiError:
        near = difflib.get_close_matches(_dashes(option), self._by_option, 1, 0.6)
        return QuantuiError(
            "vllm.unknown-flag",
            f"vLLM {self.vllm} has no flag {option}.",
            "vLLM's flags change between releases; this was asked of the engine that would run.",
            f"Did you mean {near[0]}?" if near else "`vllm serve --help=all` lists the flags.",
            ExitCode.BAD_INPUT,
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Capabilities:
        """Read :meth:`to_dict`'s form or the probe's result; KeyError or TypeError for another."""
        capability = data["device_capability"]
        return cls(
            vllm=data["vllm"],
            torch=data["torch"],
            platform=data["platform"],
            device=data["device"],
            device_capability=None if capability is None else (capability[0], capability[1]),
            plugins=tuple(data["plugins"]),
            methods=tuple(
                Method(**{**item, "dtypes": tuple(item["dtypes"])}) for item in data["methods"]
            ),
            flags=tuple(
                Flag(
                    **{
                        **item,
                        "options": tuple(item["options"]),
                        "choices": None if item["choices"] is None else tuple(item["choices"]),
                    }
                )
                for item in data["flags"]
            ),
            problems=tuple(data["problems"]),
        )


def as_command_line(arguments: Mapping[str, object]) -> list[str]:
    """A mapping as :meth:`Capabilities.check_arguments` takes it, as a command line."""
    command: list[str] = []
    for name, value in arguments.items():
        option = name if name.startswith("-") else "--" + name.replace("_", "-")
        if value is None:
            continue
        if value is True:
            command.append(option)
        elif value is False:
            command.append("--no-" + option.removeprefix("--"))
        elif isinstance(value, (list, tuple)):
            command += [option, *map(str, value)]
        else:
            command += [option, str(value)]
    return command


def _dashes(option: str) -> str:
    if not option.startswith("--"):
        return option
    head, dot, tail = option.partition(".")
    return head.replace("_", "-") + dot + tail


def _is_option(part: str) -> bool:
    """Whether an argument is a flag: a leading dash and no number, as argparse decides."""
    if len(part) < 2 or not part.startswith("-"):
        return False
    try:
        float(part)
    except ValueError:
        return " " not in part
    return False


def _grouped(command: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each flag with the values that follow it; what stands before the first flag is positional."""
    groups: list[tuple[str, list[str]]] = []
    for part in command:
        if _is_option(part):
            option, equals, value = part.partition("=")
            groups.append((option, [value] if equals else []))
        elif groups:
            groups[-1][1].append(part)
    return groups


def _expected(flag: Flag) -> str:
    if flag.choices is not None:
        return f"It takes {', '.join(flag.choices)}."
    if flag.type_name in _TYPES:
        return f"It takes {_TYPES[flag.type_name][1]}."
    return ""


def _bad_value(what: str, why: str, fix: str = "") -> QuantuiError:
    fix = fix or "Correct the value."
    return QuantuiError("vllm.bad-value", what, why, fix, ExitCode.BAD_INPUT)
