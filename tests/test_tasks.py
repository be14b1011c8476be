"""The table of tasks: whatever it names is there, and a wrong name is told what there is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmx.errors import UsageError
from mmx.models.store import assets
from mmx.tasks import COMPARING, TASKS, find, task
from tests.conftest import ROOT


@pytest.mark.parametrize("row", TASKS.values(), ids=TASKS)
def test_whatever_a_row_names_is_there(row) -> None:
    from mmx.training.losses import LOSSES
    from mmx.translate.base import Translator

    references = (row.trainer, row.fused_trainer, row.protocol, row.pairs_protocol)
    assert all(callable(find(reference)) for reference in references if reference)
    for reference in (row.translator, *row.by_words.values()):
        assert issubclass(find(reference), Translator)
    assert all((assets() / "starter" / name).is_dir() for name in row.starters.values())
    assert bool(row.trainer) == bool(row.losses) == bool(row.keys) == bool(row.target.folders)
    assert row.source.prefix or not row.trainer  # what is measured on shards alone has a prefix, too
    assert set(COMPARING) == LOSSES.keys()


def test_a_name_that_is_none_is_told_what_there_is() -> None:
    for having, last in (("translator", "text2img"), ("trainer", "img2speech"), ("protocol", "img2speech")):
        with pytest.raises(UsageError) as raised:
            task("sound2smell", having=having)
        assert f"{last}, " in raised.value.hint and "and any of sound|" in raised.value.hint
    assert task("text2img", having="trainer").origin == "text"  # what its row lacks is composed


def test_the_table_imports_nothing_heavy() -> None:
    code = "import sys, mmx.tasks; print({'torch', 'numpy', 'typer', 'transformers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
