"""The command as a user meets it: files, pipes, batches, exit codes."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.media.audio import Waveform, wav_bytes
from tests.conftest import ROOT, tone


@pytest.fixture
def sounds(tmp_path: Path, bark: Path, sea: Path) -> Path:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    shutil.copy(bark, tmp_path / "in" / "bark.wav")
    shutil.copy(sea, tmp_path / "in" / "deep" / "sea.wav")
    return tmp_path / "in"


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom mmx.cli.app import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('torch', 'numpy', 'transformers', 'diffusers', 'librosa', 'PIL')\n"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=True)
    assert done.stderr.decode().strip() == "[]" and b"sound2img" in done.stdout


def test_one_file(mmx_in_process, debug_options, tmp_path: Path, bark: Path) -> None:
    code, out, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "dog.png", *debug_options)
    assert code == 0 and out == b"" and b"heard: " in err
    assert Image.open(tmp_path / "dog.png").size == (64, 64)
    assert mmx_in_process("sound2img", bark, "-o", tmp_path / "dog.png", *debug_options)[0] == 2  # it exists


def test_an_item_does_not_depend_on_its_batch(mmx_in_process, debug_options, tmp_path: Path, sounds: Path) -> None:
    assert mmx_in_process("sound2img", sounds, "-o", tmp_path / "all", "-n", 3, *debug_options)[0] == 0
    assert sorted(str(p.relative_to(tmp_path / "all")) for p in (tmp_path / "all").rglob("*.png")) == [
        "bark-0.png",
        "bark-1.png",
        "bark-2.png",
        "deep/sea-0.png",
        "deep/sea-1.png",
        "deep/sea-2.png",
    ]
    assert mmx_in_process("sound2img", sounds / "deep" / "sea.wav", "-o", tmp_path / "one.png", *debug_options)[0] == 0
    alone, together = (
        np.asarray(Image.open(p)) for p in (tmp_path / "one.png", tmp_path / "all" / "deep" / "sea-0.png")
    )
    np.testing.assert_array_equal(alone, together)
    other = np.asarray(Image.open(tmp_path / "all" / "deep" / "sea-1.png"))
    assert (other != alone).any()


def test_same_seed_same_bytes_other_seed_other_bytes(mmx_in_process, debug_options, tmp_path: Path, bark: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert mmx_in_process("sound2img", bark, "-o", tmp_path / f"{name}.png", "--seed", seed, *debug_options)[0] == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_a_pipe_in_a_real_shell(mmx_in_process, one_step_options, tmp_path: Path, bark: Path) -> None:
    options = " ".join(one_step_options)
    command = f"cat '{bark}' | {sys.executable} -m mmx sound2img - -o - -q {options} > '{tmp_path}/pipe.png'"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0 and done.stderr == b""
    assert mmx_in_process("sound2img", bark, "-o", tmp_path / "direct.png", *one_step_options)[0] == 0
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "pipe.png")), np.asarray(Image.open(tmp_path / "direct.png"))
    )


def test_one_bad_file_does_not_stop_the_rest(mmx_in_process, debug_options, tmp_path: Path, sounds: Path) -> None:
    (sounds / "broken.wav").write_bytes(b"RIFF")
    (sounds / "silent.wav").write_bytes(wav_bytes(Waveform(np.zeros(8000, np.float32), 16_000)))
    code, out, _ = mmx_in_process("sound2img", sounds, "-o", tmp_path / "out", "--json", *debug_options)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 6 and len(list((tmp_path / "out").rglob("*.png"))) == 2
    assert [line["schema"] for line in lines].count("mmx.result/1") == 2
    failed = {Path(line["inputs"][0]).name: line["exit_code"] for line in lines if "inputs" in line and "error" in line}
    assert failed == {"broken.wav": 3, "silent.wav": 3} and lines[-1]["exit_code"] == 6


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["sound2img", "nope.wav"], 2),
        (["sound2img"], 2),
        (["nonsense"], 2),
        (["sound2img", "{bark}", "--num", "0"], 2),
        (["sound2img", "{bark}", "-o", "x.jpg"], 2),
        (["sound2img", "{bark}", "-o", "x.gif"], 2),
        (["sound2img", "{bark}", "--mix", "no.wav"], 2),
        (["sound2img", "{bark}", "--mix", "{bark}:7"], 2),
        (["sound2img", "{bark}", "--bridge", "nowhere"], 2),
        (["inspect", "{bark}"], 3),
        (["sound2img", "{readme}"], 3),
        (["sound2img", "{bark}", "--bridge", "{tests}"], 4),
        (["sound2img", "{bark}", "--bridge", "hf-hub:a/b"], 5),
        (["sound2img", "{bark}", "--device", "tpu"], 2),
        (["sound2img", "{bark}", "--size", "60"], 2),
    ],
)
def test_exit_codes(
    mmx_in_process, debug_models, tmp_path: Path, bark: Path, monkeypatch, arguments: list[str], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    bridge, decoder = debug_models
    names = {"bark": bark, "readme": ROOT / "README.md", "tests": ROOT / "tests"}
    given = [argument.format(**names) for argument in arguments]
    if code in (2, 3) and given[0] == "sound2img" and "--bridge" not in given and len(given) > 1:
        given += ["--bridge", str(bridge), "--decoder", str(decoder)]
    got, _, err = mmx_in_process(*given)
    assert got == code, err
    assert b"Traceback" not in err and b"bug" not in err and b"mmx: " in err
    assert list(tmp_path.iterdir()) == []


def test_a_bridge_for_another_decoder_is_refused_with_both_names(
    mmx_in_process, debug_models, tmp_path: Path, bark: Path
) -> None:
    bridge, decoder = debug_models
    config = json.loads((bridge / "config.json").read_text())
    config["spec"] |= {"fingerprint": "f" * 64, "name": "another/space"}
    other = tmp_path / "bridge"
    shutil.copytree(bridge, other)
    (other / "config.json").write_text(json.dumps(config))
    (other / "SHA256SUMS").unlink()
    code, _, err = mmx_in_process("sound2img", bark, "--bridge", other, "--decoder", decoder, "-o", tmp_path / "a.png")
    assert code == 4 and b"another/space" in err and b"debug/embedding" in err


def test_a_flipped_bit_in_a_model_is_found(mmx_in_process, debug_models, tmp_path: Path, bark: Path) -> None:
    bridge, decoder = debug_models
    other = tmp_path / "bridge"
    shutil.copytree(bridge, other)
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-7] ^= 4
    (other / "model.safetensors").write_bytes(data)
    code, _, err = mmx_in_process("sound2img", bark, "--bridge", other, "--decoder", decoder, "-o", tmp_path / "a.png")
    assert code == 4 and b"sha256" in err


def test_reproduce(
    mmx_in_process, debug_models, debug_options, tmp_path: Path, bark: Path, sea: Path, monkeypatch
) -> None:
    models = ["--bridge", debug_models[0], "--decoder", debug_models[1]]
    for sound in (bark, sea):
        shutil.copy(sound, tmp_path)
    monkeypatch.chdir(tmp_path)
    made = {
        "-n": ["-n", "3", "-o", "n.png"],
        "mix": ["--mix", "sea.wav:0.3", "-o", "mix.png"],
        "grid": ["-n", "4", "--grid", "-o", "grid.png"],
        "gif": ["--interpolate", "sea.wav", "--frames", "3", "-o", "walk.gif"],
        "strip": ["--interpolate", "sea.wav", "-o", "walk.png"],
        "gain": ["--gain", "6", "--start", "1", "--duration", "2", "--seed", "5", "-o", "gain.png"],
    }
    for arguments in made.values():
        assert mmx_in_process("sound2img", "bark.wav", *arguments, *debug_options)[0] == 0
    for name in ("n-2.png", "mix.png", "grid.png", "walk.gif", "walk.png", "gain.png"):
        assert mmx_in_process("reproduce", name, *models)[0] == 0, name
    (tmp_path / "sea.wav").unlink()
    code, _, err = mmx_in_process("reproduce", "mix.png", *models)
    assert code == 3 and b"sea.wav" in err
    data = bytearray((tmp_path / "n-0.png").read_bytes())
    data[-20] ^= 1
    (tmp_path / "n-0.png").write_bytes(data)
    assert mmx_in_process("reproduce", "n-0.png", "bark.wav", *models)[0] == 1


def test_inspect_says_what_made_it(mmx_in_process, debug_options, tmp_path: Path, bark: Path) -> None:
    mmx_in_process("sound2img", bark, "-o", tmp_path / "a.png", "--seed", "9", *debug_options)
    record = json.loads(mmx_in_process("inspect", tmp_path / "a.png", "--json")[1])
    assert record["synthetic"] is True and record["settings"]["seed"] == 9 and record["inputs"][0]["name"] == "bark.wav"
    assert str(tmp_path) not in json.dumps(record)  # no folders of the user's machine


def test_an_image_pulls_the_result_toward_it(debug_models, bark: Path) -> None:
    from mmx import load
    from mmx.translate.base import Blend

    translator = load("sound2img", bridge=str(debug_models[0]), decoder=str(debug_models[1]))
    point = translator.point(translator.read(bark))
    picture = Image.new("RGB", (64, 64), "red")
    own = translator.decoder.targets([picture])[0]
    near = [
        torch.cosine_similarity(translator.conditioning(point, 0, 0, Blend(picture, w))[0], own, dim=0).item()
        for w in (0.0, 0.5, 1.0)
    ]
    assert near[0] < near[1] < near[2] and near[2] > 0.999


def test_weights_are_loaded_once(debug_models) -> None:
    from mmx import load

    bridge, decoder = map(str, debug_models)
    assert load("sound2img", bridge=bridge, decoder=decoder) is load("sound2img", bridge=bridge, decoder=decoder)
    pictures = load("sound2img", bridge=bridge, decoder=decoder)((tone(1.0), 16_000), num=2, steps=2)
    assert len(pictures) == 2 and all(isinstance(picture, Image.Image) for picture in pictures)


def test_plain_diffusers_loads_the_decoder_and_agrees(debug_models) -> None:
    """Our path equals the library's pipeline, called by hand."""
    from diffusers import KandinskyV22Pipeline
    from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

    from mmx.decoders.unclip import ImageDecoder

    ours = ImageDecoder.load(debug_models[1])
    embeds = torch.randn(1, 32, generator=torch.Generator().manual_seed(3))
    picture = ours.decode(embeds, generators=[torch.Generator().manual_seed(1)], steps=3, guidance=2.0)[0]
    plain = KandinskyV22Pipeline.from_pretrained(debug_models[1], dtype=torch.float32)
    assert isinstance(plain.movq, PaellaVQModel)
    plain.set_progress_bar_config(disable=True)
    theirs = plain(
        image_embeds=embeds,
        negative_image_embeds=ours.targets([Image.new("RGB", (64, 64))]),
        height=64,
        width=64,
        num_inference_steps=3,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(1),
    ).images[0]
    assert np.abs(np.asarray(picture).astype(int) - np.asarray(theirs).astype(int)).max() <= 1


def test_starter_hears_its_samples(mmx_in_process, tmp_path: Path) -> None:
    names = {"bark": "dog", "bees": "bee", "crickets": "grasshopper", "fire": "fire", "meow": "cat", "rain": "rain"}
    names |= {"sea": "seashore", "siren": "police van", "typing": "keyboard"}
    samples = [ROOT / "assets" / "samples" / f"{name}.wav" for name in names]
    code, out, _ = mmx_in_process("sound2img", *samples, "-o", tmp_path, "--json")
    heard = {Path(r["inputs"][0]).stem: r["heard"][0][0]["label"] for r in map(json.loads, out.splitlines())}
    assert code == 0 and heard == names


@pytest.mark.parametrize(("change", "others"), [("quiet, in a rumble", set()), ("resampled", {"bees"})])
def test_what_no_ear_hears_is_not_heard(change: str, others: set[str]) -> None:
    """The starter names its samples alike, whatever lies below hearing and whatever rate they went through; but for one
    that is loudest where a resampler ends.
    """
    from mmx import load
    from mmx.evaluation.changed import CHANGES
    from mmx.media.audio import read_audio

    translator = load("sound2img", device="cpu")
    names = translator.text_points(labels := list(translator.bridge.config.labels))
    for path in sorted((ROOT / "assets" / "samples").glob("*.wav")):
        wave = read_audio(path, sample_rate=16_000)
        plain, changed = (labels[int((names @ translator.point(x)).argmax())] for x in (wave, CHANGES[change](wave)))
        assert (plain == changed) == (path.stem not in others), path.name


def test_bytes_in_memory_equal_a_file(debug_models, bark: Path) -> None:
    from mmx import load

    translator = load("sound2img", bridge=str(debug_models[0]), decoder=str(debug_models[1]))
    a, b = translator(bark.read_bytes(), steps=2)[0], translator(str(bark), steps=2)[0]
    assert io.BytesIO(a.tobytes()).getvalue() == b.tobytes()


def test_a_big_batch_is_shared_and_goes_on(
    mmx_in_process, two_processes, one_step_options, tmp_path: Path, sounds: Path
) -> None:
    """Two processes do each item once, with the bytes that one process gives; --resume makes only what is missing."""
    one, two = tmp_path / "one", tmp_path / "two"
    assert mmx_in_process("sound2img", sounds, "-o", one, "-n", 2, *one_step_options)[0] in (0, 6)
    command = ["-m", "mmx", "sound2img", str(sounds), "-o", str(two), "-n", "2", "--resume", "--quiet"]
    command += one_step_options
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([*two_processes, *command], capture_output=True, env=environment, check=False)
    names = {path.relative_to(one) for path in one.rglob("*.png")}
    assert names and names == {path.relative_to(two) for path in two.rglob("*.png")}
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    rows = [json.loads(line) for line in (two / "mmx-done.jsonl").read_text().splitlines()]
    assert len({row["job"] for row in rows}) == len(rows) == len(names) // 2 and {row["process"] for row in rows} == {
        0,
        1,
    }
    gone = two / sorted(names)[0]
    gone.unlink()
    with (two / "mmx-done.jsonl").open("a") as file:
        file.write('{"job": "cut sho')
    _, out, _ = mmx_in_process("sound2img", sounds, "-o", two, "-n", 2, "--resume", "--json", *one_step_options)
    made = [line for line in map(json.loads, out.splitlines()) if "outputs" in line]
    assert len(made) == 1 and str(gone) in made[0]["outputs"] and gone.exists()
    assert mmx_in_process("sound2img", sounds, "-o", one / "a.png", "--resume", *one_step_options)[0] == 2
