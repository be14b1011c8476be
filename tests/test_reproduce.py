"""`mmx reproduce` and `--resume`: every model that made an artifact counts, and nothing is overwritten unasked."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.cli.ledger import job_digest
from mmx.cli.look import _other_models
from mmx.device import threads
from mmx.errors import ModelError
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.compare import largest_difference
from mmx.media.image import png_bytes
from mmx.media.provenance import read_record, text_chunks
from mmx.models.store import Located, seal
from mmx.translate.job import Given, Job, Settings
from tests.conftest import tone


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A decoder's folder and its companion's."""
    for name in ("decoder", "companion"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
    return tmp_path / "decoder", tmp_path / "companion"


def translator(at: Located, **more: Located) -> SimpleNamespace:
    return SimpleNamespace(models={"bridge": Located("b", at.folder), "decoder": at} | more)


def record_of(models: SimpleNamespace) -> dict:
    return known_as(models) | {"libraries": {}}


def known_as(models: SimpleNamespace) -> dict:
    return {role: at.as_dict() for role, at in models.models.items()}


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("which", [0, 1])
def test_a_change_of_the_companion_counts_as_one_of_the_decoder(folders, sealed: bool, which: int) -> None:
    made_by = translator(Located("a+b", *folders))
    job = Job((Given("x.wav", b"x"),), Settings())
    for folder in folders if sealed else ():
        seal(folder)
    record, key = record_of(made_by), job_digest(job, known_as(made_by))
    assert record["decoder"].keys() == {"name", "sha256", "companion"} and _other_models(record, made_by) == []
    (folders[which] / "model.safetensors").write_bytes(b"other")
    if sealed:
        seal(folders[which])
    assert job_digest(job, known_as(made_by)) != key
    assert any("decoder" in said for said in _other_models(record, made_by))


def test_a_record_without_a_companion_or_a_digest_is_an_older_one(folders) -> None:
    now = translator(Located("a+b", *folders))
    record = record_of(now)
    del record["decoder"]["companion"]
    record["bridge"]["sha256"] = "unsealed"
    assert _other_models(record, now) == []


def test_an_encoder_on_one_side_only_is_a_difference(folders) -> None:
    without, encoder = translator(Located("a", folders[0])), Located("e", folders[1])
    having = translator(Located("a", folders[0]), encoder=encoder)
    assert _other_models(record_of(without), having) == ["it was made without an encoder"]
    assert _other_models(record_of(having), without) == ["it was made with an encoder"]
    with pytest.raises(ModelError, match="it was made with the encoder e"):
        _other_models(record_of(having), translator(Located("a", folders[0]), encoder=Located("f", folders[1])))


def test_what_is_not_installed_is_a_difference(folders) -> None:
    now = translator(Located("a", folders[0]))
    assert _other_models(record_of(now) | {"libraries": {"no-such-library": "1.0"}}, now) == [
        "no-such-library was 1.0, is not here"
    ]


def test_nothing_is_overwritten_unasked(
    mmx_in_process, debug_models, debug_options, tmp_path: Path, bark: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(bark, tmp_path)
    models = ("--bridge", debug_models[0], "--decoder", debug_models[1])
    assert mmx_in_process("sound2img", "bark.wav", "-o", "a.png", *debug_options)[0] == 0
    made = (tmp_path / "a.png").read_bytes()
    (tmp_path / "mine.png").write_bytes(b"precious")
    code, _, err = mmx_in_process("reproduce", "a.png", "-o", "mine.png", *models)
    assert code == 2 and b"--overwrite" in err and (tmp_path / "mine.png").read_bytes() == b"precious"
    assert mmx_in_process("reproduce", "a.png", "-o", "b.wav", *models)[0] == 2
    assert mmx_in_process("reproduce", "a.png", "-o", "-", "--json", *models)[0] == 2
    assert mmx_in_process("reproduce", "a.png", "-o", "mine.png", "--overwrite", *models)[0] == 0
    assert mmx_in_process("reproduce", "a.png", "-o", "again.v2/", *models)[0] == 0
    assert {(tmp_path / name).read_bytes() for name in ("mine.png", "again.v2/a.png")} == {made}
    record = read_record(made, "a.png")
    picture = Image.open(io.BytesIO(made))
    for changed, says in (
        (record | {"settings": record["settings"] | {"sharpness": 3}, "version": "9.9"}, b"sharpness"),
        ({name: value for name, value in record.items() if name != "layout"}, b"layout"),
    ):
        (tmp_path / "c.png").write_bytes(png_bytes(picture, text_chunks(changed)))
        code, out, _ = mmx_in_process("reproduce", "c.png", "--json", *models)
        assert code == 3 and says in out and json.loads(out)["schema"] == "mmx.error/1"
    assert sorted(os.listdir(tmp_path)) == ["a.png", "again.v2", "bark.wav", "c.png", "mine.png"]


def test_it_is_made_again_with_as_many_threads_and_last_bits_have_a_code_of_their_own(
    mmx_in_process, debug_models, debug_options, tmp_path: Path, bark: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(bark, tmp_path)
    models = ("--bridge", debug_models[0], "--decoder", debug_models[1])
    before = torch.get_num_threads()
    with threads(before + 1):
        assert mmx_in_process("sound2img", "bark.wav", "-o", "a.png", *debug_options)[0] == 0
    made = (tmp_path / "a.png").read_bytes()
    record = read_record(made, "a.png")
    assert record["machine"] == {"threads": before + 1, "cpu": torch.backends.cpu.get_cpu_capability()}
    assert mmx_in_process("reproduce", "a.png", *models)[0] == 0 and torch.get_num_threads() == before

    picture = np.asarray(Image.open(io.BytesIO(made))).astype(int)
    for step, machine, code, says in (
        (1, record["machine"], 8, b"differs in the last bits: max |d| = 1 of 255"),
        (1, record["machine"] | {"cpu": "AVX9"}, 8, b"the processor's kernels were AVX9"),
        (0, record["machine"] | {"cpu": "AVX9"}, 8, b"only in what it says of itself"),
        (9, record["machine"], 1, b"max |d| = 9 of 255"),
        (0, record["machine"] | {"threads": 10**9}, 3, b"threads"),
    ):
        changed = picture.copy()
        changed[0, 0, 0] += step if picture[0, 0, 0] < 128 else -step
        other = png_bytes(Image.fromarray(changed.astype(np.uint8)), text_chunks(record | {"machine": machine}))
        (tmp_path / "b.png").write_bytes(other)
        got, out, err = mmx_in_process("reproduce", "b.png", "--json", *models)
        assert got == code and says in out, out + err
    old = {name: value for name, value in record.items() if name != "machine"}
    (tmp_path / "b.png").write_bytes(png_bytes(Image.open(io.BytesIO(made)), text_chunks(old)))
    assert mmx_in_process("reproduce", "b.png", *models)[0] == 8  # what older versions made


def test_artifacts_of_other_kinds_and_sizes_are_not_compared() -> None:
    wave, louder = (wav_bytes(Waveform(tone(0.1) * np.float32(by), 16_000)) for by in (1.0, 1.001))
    small, large = (png_bytes(Image.new("RGB", size), {}) for size in ((8, 8), (9, 8)))
    assert largest_difference(wave, louder) == (17, 32_767)
    assert largest_difference(small, small) == (0, 255)
    assert largest_difference(small, large) is None and largest_difference(small, wave) is None
    assert largest_difference(small, b"RIFF") is None
