"""A model's config.json as typed values: untrusted JSON goes in, checked numbers come out.

A config states only what differs from the defaults of its class in transformers, so that what it leaves out is
looked up in ``data/config_defaults.toml``. Nothing here raises: a value of a wrong type counts as left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

MOST_LAYERS = 4096
"""More layers than any model has; a larger number is a damaged or hostile config."""
_MOST = 2**40
_DEEPEST = 4
_NESTED_TEXT = ("text_config", "llm_config", "language_config", "thinker_config", "language_model")
_NESTED_VISION = ("vision_config", "vision_tower_config", "vit_config", "visual")


@dataclass(frozen=True)
class ConfigView:
    """One object of a config, with the defaults of its ``model_type`` behind it."""

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    model_type: str

    def whole(self, *names: str) -> int | None:
        """The first positive whole number among ``names``: stated ones, then defaults of those not stated at all.

        A field that is null is stated: its class would take the null and not its default.
        """
        for name in names:
            if (number := positive(self.values.get(name))) is not None:
                return number
        for name in names:
            if (
                name not in self.values
                and (number := positive(self.defaults.get(name))) is not None
            ):
                return number
        return None

    def stated(self, *names: str) -> int | None:
        """As :meth:`whole`, of what the config itself states."""
        for name in names:
            if (number := positive(self.values.get(name))) is not None:
                return number
        return None

    def count(self, *names: str) -> int:
        """As :meth:`whole`, where 0 and nothing mean the same."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value == 0:
                return 0
        return self.whole(*names) or 0

    def number(self, *names: str) -> float | None:
        """The first finite number among ``names``, fractions included."""
        for place in (self.values, self.defaults):
            for name in names:
                value = place.get(name)
                if (
                    isinstance(value, int | float)
                    and not isinstance(value, bool)
                    and abs(value) < _MOST
                ):
                    return float(value)
        return None

    def flag(self, *names: str, otherwise: bool = False) -> bool:
        """The first boolean among ``names``."""
        for place in (self.values, self.defaults):
            for name in names:
                if isinstance(value := place.get(name), bool):
                    return value
        return otherwise

    def text(self, *names: str) -> str | None:
        """The first string among ``names``."""
        for place in (self.values, self.defaults):
            for name in names:
                if isinstance(value := place.get(name), str) and value:
                    return value
        return None

    def items(self, *names: str) -> list[Any] | None:
        """The first list among ``names``, of a length that layers can have."""
        for place in (self.values, self.defaults):
            for name in names:
                value = place.get(name)
                if isinstance(value, list) and 0 < len(value) <= MOST_LAYERS:
                    return value
        return None

    def has(self, name: str) -> bool:
        """Whether the config states ``name`` as something but null."""
        return self.values.get(name) is not None

    def null(self, name: str) -> bool:
        """Whether the config states ``name`` as null, which is not the same as leaving it out."""
        return name in self.values and self.values[name] is None

    def nested(self, *names: str) -> ConfigView | None:
        """The first object among ``names``, with the defaults of its own type."""
        kinds = self.defaults.get("sub_configs")
        for name in names:
            value = self.values.get(name)
            if isinstance(value, Mapping):
                kind = value.get("model_type")
                if not isinstance(kind, str) or kind not in config_defaults():
                    stated = kinds.get(name) if isinstance(kinds, Mapping) else None
                    kind = stated if isinstance(stated, str) else kind
                return ConfigView(value, defaults_of(kind), kind if isinstance(kind, str) else "")
        return None


def whole_numbers(items: list[Any]) -> frozenset[int]:
    """Those of the items that are whole numbers."""
    return frozenset(item for item in items if isinstance(item, int))


def model_types(names: str) -> frozenset[str]:
    """A set of ``model_type`` names, written with spaces between them."""
    return frozenset(names.split())


def positive(value: object) -> int | None:
    """``value`` as a whole number above 0 and below 2^40; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 < value < _MOST:
        return None
    return int(value) if int(value) == value else None


@cache
def config_defaults() -> Mapping[str, Mapping[str, Any]]:
    """``model_type`` -> what its configuration class takes for fields left out (transformers 5.19)."""
    text = resources.files("quantui.data").joinpath("config_defaults.toml").read_text("utf-8")
    return tomllib.loads(text)


def defaults_of(model_type: object) -> Mapping[str, Any]:
    """The defaults of one type; none for a type that transformers does not have."""
    return config_defaults().get(model_type, {}) if isinstance(model_type, str) else {}


def whole_view(config: Mapping[str, Any]) -> ConfigView:
    """The config as it stands."""
    kind = config.get("model_type")
    return ConfigView(config, defaults_of(kind), kind if isinstance(kind, str) else "")


def text_view(config: Mapping[str, Any]) -> ConfigView:
    """The language model's part: nested in multimodal checkpoints, or the whole config.

    A multimodal config in the older form keeps the language model's fields at the top (Qwen2-VL): its defaults
    are then those of the class that transformers makes of them.
    """
    view = whole_view(config)
    for _ in range(_DEEPEST):
        inner = view.nested(*_NESTED_TEXT)
        if inner is None:
            break
        view = inner
    kinds = view.defaults.get("sub_configs")
    kind = kinds.get("text_config") if isinstance(kinds, Mapping) else None
    if isinstance(kind, str) and view.values.get("hidden_size") is not None:
        return ConfigView(view.values, defaults_of(kind), kind)
    return view


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """As :func:`text_view`, without defaults: what the config states about the language model."""
    for _ in range(_DEEPEST):
        nested = (config.get(key) for key in _NESTED_TEXT)
        found = next((one for one in nested if isinstance(one, Mapping)), None)
        if found is None:
            break
        config = found
    return config


def rope_parts(text: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rope's fields, once for each kind of layer that has its own; none where the config states no rope."""
    rope = text.get("rope_parameters") or text.get("rope_scaling")
    if not isinstance(rope, Mapping):
        return []
    return [value for value in rope.values() if isinstance(value, Mapping)] or [rope]


def vision_view(config: Mapping[str, Any]) -> ConfigView | None:
    """The part about images, when the config has one."""
    view = whole_view(config)
    if isinstance(thinker := config.get("thinker_config"), Mapping):
        view = whole_view(thinker)
    return view.nested(*_NESTED_VISION)
