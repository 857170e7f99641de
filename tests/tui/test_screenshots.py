"""The pictures are what the screens draw today, and show nothing of the machine they were made on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "screenshots"))
from pictures import PICTURES

from quantui.tui.steps import FAILURE, STEPS

HERE = Path(__file__).parents[2] / "screenshots"
SVGS = sorted(HERE.glob("**/*.svg"))


def test_the_pictures_are_what_is_drawn_today():
    done = subprocess.run(
        [sys.executable, str(HERE / "make.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nredraw: python screenshots/make.py"


def test_every_step_has_a_picture():
    names = {picture.name.replace("-", "_") for picture in PICTURES}
    assert {step.name for step in (*STEPS, FAILURE)} <= names
    assert {"why", "options", "cache", "history", "background", "help", "palette"} <= names


def test_every_picture_lies_here_and_no_other():
    kept = {path.stem for path in (HERE / "wizard").glob("*.svg")}
    assert kept == {picture.name for picture in PICTURES}
    assert {path.stem for path in (HERE / "wizard").glob("*.png")} == kept


@pytest.mark.parametrize("path", SVGS, ids=lambda path: path.stem)
def test_a_picture_names_no_place_of_the_machine_it_was_drawn_on(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/root|/work|/home/(?!you)|/tmp/(?!you)", text)


@pytest.mark.parametrize(
    "path", sorted((HERE / "recorded").glob("**/*.json*")), ids=lambda p: p.name
)
def test_a_record_names_none_either(path):
    assert not re.search(
        r"/root|/work|/home/(?!you)|/tmp/(?!you)", path.read_text(encoding="utf-8")
    )
