"""Write quantui/data/config_defaults.toml from transformers' configuration classes.

Run it with an interpreter that has transformers: ``python benchmarks/config_defaults.py``. A field is kept when
some module of quantui/domain asks for its name and its default is a number, a truth value, a string or a list of
numbers; a type is kept when it has such fields and is a language, vision or audio model that vLLM can serve.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "quantui/data/config_defaults.toml"
HEADER = """# What the configuration classes of transformers {version} take for fields that a config.json leaves out.
# Written by benchmarks/config_defaults.py; `sub_configs` names the type of a nested config that does not name its own.
"""
SKIPPED = re.compile(
    r"detr|sam|yolo|rt_|dino|segformer|swin|resnet|timesf|patchts|wav2vec|hubert|unispeech|speecht5|seamless|encodec"
    r"|musicgen|bark|clap|layoutlm|depth|dpt|zoe|mask2former|oneformer|superglue|superpoint|lightglue|pp_|vjepa|vits"
    r"|esm|tapas|table|informer|autoformer|time_series|slane|uvdoc|edgetam|videomae|vivit|groupvit|owl|pop2piano"
)


def names_asked_for() -> set[str]:
    """Every string of the domain's code that could be a field's name."""
    found = set()
    for path in (ROOT / "quantui/domain").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(
                    re.findall(r"[A-Za-z_][A-Za-z0-9_]*", node.value)
                    if " " not in node.value
                    else []
                )
    return found - {"dtype", "architectures", "model_type", "id2label", "label2id", "auto_map"}


def toml_value(value: object) -> str | None:
    """The value as TOML writes it; None for what is left out."""
    if isinstance(value, bool | int | str):
        return json.dumps(value)
    if isinstance(value, list | tuple) and value and all(type(item) is int for item in value):
        return json.dumps(list(value))
    return None


def main() -> None:
    """Write the file."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    asked = names_asked_for()
    lines = [HEADER.format(version=transformers.__version__)]
    for kind in sorted(CONFIG_MAPPING_NAMES):
        if SKIPPED.search(kind):
            continue
        cls = CONFIG_MAPPING[kind]
        fields = []
        for field in dataclasses.fields(cls):
            factory = field.default_factory
            value = factory() if factory is not dataclasses.MISSING else field.default
            text = toml_value(value) if field.name in asked and value != [] else None
            if text is not None:
                fields.append(f"{field.name} = {text}")
        subs = {
            name: sub.model_type
            for name, sub in (getattr(cls, "sub_configs", None) or {}).items()
            if getattr(sub, "model_type", "")
        }
        if subs:
            inner = ", ".join(f"{json.dumps(n)} = {json.dumps(k)}" for n, k in subs.items())
            fields.append(f"sub_configs = {{ {inner} }}")
        if fields:
            lines.append(f"[{json.dumps(kind)}]\n" + "\n".join(fields) + "\n")
    TARGET.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
