"""What a starter command imports is what it runs: importing the large libraries costs more than all the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT

NEVER = ("librosa", "numba", "sklearn", "matplotlib", "pandas", "torchvision", "torchmetrics", "cv2", "av", "gradio")
LIBRARIES = (*NEVER, "scipy", "diffusers", "transformers", "accelerate", "sympy", "torch._dynamo")
# each in the process of those before it, with what must not be there yet after it
COMMANDS = {
    "show": ("{bark} -o {tmp}/a.png", (*LIBRARIES, "torch", "tokenizers", "huggingface_hub")),
    "inspect": ("{tmp}/photo.png", (*LIBRARIES, "torch", "tokenizers", "huggingface_hub")),
    "sound2img": ("{bark} -o {tmp}/b.png {models}", LIBRARIES),
    "text2img": ("dog -o {tmp}/c.png {models}", LIBRARIES),
    "img2speech": ("{tmp}/photo.png -o {tmp}/d.wav {speech}", LIBRARIES),
    "caption": ("{bark} --steps 1 -o {tmp}/g.txt", LIBRARIES),
    "reproduce": ("{tmp}/b.png {bark} -o {tmp}/e.png {models}", LIBRARIES),
    "voice2face": ("{low} -o {tmp}/f.png {faces}", (*NEVER, "diffusers.pipelines.stable_diffusion")),
}
SCRIPT = """
import contextlib, json, sys
from mmx.cli.app import main
found = {}
for name, words, unwanted in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
        main([name, *words])
        raise RuntimeError("it should leave")
    found[name] = sorted(set(unwanted) & set(sys.modules))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported(
    tmp_path_factory: pytest.TempPathFactory, one_step_options, speech_options, face_options
) -> Iterator[dict[str, list[str]]]:
    """Of each command in COMMANDS what was imported that it must not need."""
    folder, samples = tmp_path_factory.mktemp("imports"), ROOT / "assets" / "samples"
    Image.radial_gradient("L").convert("RGB").save(folder / "photo.png")
    names = {"tmp": folder, "bark": samples / "bark.wav", "low": samples / "voices" / "low.wav"}
    names |= {"models": " ".join(one_step_options), "speech": " ".join(speech_options), "faces": " ".join(face_options)}
    rows = [(name, line.format(**names).split(), unwanted) for name, (line, unwanted) in COMMANDS.items()]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(rows)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    for made in ("a.png", "b.png", "c.png", "d.wav", "e.png", "f.png", "g.txt"):
        assert (Path(folder) / made).exists(), f"{made}: {done.stderr.decode()}"
    yield json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_what_it_runs(imported: dict[str, list[str]], command: str) -> None:
    assert imported[command] == []
