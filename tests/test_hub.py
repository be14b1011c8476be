"""`mmx models` against a hub on loopback: good, cut short, changed, missing, slow, and killed half-way."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests.conftest import ROOT
from tests.fake_hub import COMMIT, FakeHub, environment_of, runner

WEIGHTS = save({"x": np.random.default_rng(0).standard_normal(300_000).astype(np.float32)})
FILES = {
    "config.json": b'{"model_type": "x"}',
    "model.safetensors": WEIGHTS,
    "README.md": b"# A card\n",
    "run.py": b"1/0",
}
REPO = "org/model"


@pytest.fixture
def hub():
    hub = FakeHub({REPO: dict(FILES), "org/pickled": {"pytorch_model.bin": b"x", "config.json": b"{}"}})
    with hub.serving() as address:
        hub.address = address
        yield hub


@pytest.fixture
def environment(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    return environment_of(hub.address, tmp_path)


@pytest.fixture
def models(environment: dict[str, str]):
    return runner(environment)


def test_pull_path_verify_card_ls_rm(models, hub: FakeHub, tmp_path: Path) -> None:
    code, out, err = models("models", "pull", REPO)
    assert code == 0, err
    folder = Path(out.strip())
    assert folder.name == COMMIT and (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not (folder / "run.py").exists()  # nothing that could run
    assert json.loads((tmp_path / "cache" / "mmx-pins.json").read_text()) == {REPO: COMMIT}
    off = {"HF_HUB_OFFLINE": "1"}
    assert models("models", "path", REPO, **off)[1].strip() == str(folder)
    assert "every file is the published one" in models("models", "verify", REPO, **off)[2]
    assert "# A card" in models("models", "card", REPO, **off)[1]
    rows = [json.loads(line) for line in models("models", "ls", "--json")[1].splitlines()]
    row = next(row for row in rows if row["name"] == REPO)
    assert row["on_disk"] and row["bytes"] >= len(WEIGHTS)
    known = {row["name"]: row for row in rows}
    assert known["kandinsky-2.2"]["licence"] == "Apache-2.0" and not known["kandinsky-2.2"]["on_disk"]
    assert known["seamless-vocoder"]["commercial"] is False and known["starter/image"]["on_disk"]
    assert known["starter/image"]["resolution"] == 64 and known["starter/image"]["steps"]
    before = len(hub.downloads)
    assert models("models", "pull", REPO)[0] == 0 and len(hub.downloads) == before  # nothing twice
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
    for command in (
        ("models", "verify", REPO),
        ("models", "path", REPO),
        ("sound2img", str(ROOT / "assets/samples/bark.wav"), "--bridge", f"hf-hub:{REPO}", "-o", tmp_path / "a.png"),
    ):
        code, _, err = models(*map(str, command), **off)
        assert code == 4 and "model.safetensors" in err
    code, out, err = models("models", "rm", REPO)
    assert code == 0 and not blob.exists()
    assert models("models", "path", REPO)[0] == 5
    assert models("models", "rm", REPO)[0] == 4


def test_a_terminal_sees_how_far_a_pull_is_and_a_log_does_not(models, environment: dict[str, str]) -> None:
    def on_a_terminal(*options: str) -> bytes:
        ours, terminal = pty.openpty()
        command = [sys.executable, "-m", "mmx", "models", "pull", REPO, *options]
        own = environment | {"TERM": "xterm"}
        pulling = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=terminal)
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # nobody holds the other end any more
            while part := os.read(ours, 4096):
                shown += part
        os.close(ours)
        assert pulling.communicate()[0] and pulling.returncode == 0, shown
        return shown

    shown = on_a_terminal()
    assert b"1.2/1.2 MB" in shown and b"left" in shown, shown
    assert b"Fetching" not in shown and b"Downloading" not in shown  # the library's own bars
    assert models("models", "rm", REPO)[0] == 0 and on_a_terminal("--quiet") == b""
    assert models("models", "rm", REPO)[0] == 0 and models("models", "pull", REPO)[2] == ""


@pytest.mark.parametrize(
    ("file", "trouble", "code", "says"),
    [
        ("model.safetensors", "flipped", 4, "not the file that was published"),
        ("config.json", "flipped", 4, "not the file that was published"),
        ("model.safetensors", "truncated", 5, REPO),
        ("model.safetensors", "missing", 4, REPO),
        ("model.safetensors", "stalls", 5, REPO),
    ],
)
def test_a_pull_that_fails_says_so_and_the_next_mends_it(
    models, hub: FakeHub, file: str, trouble: str, code: int, says: str
) -> None:
    hub.trouble[file] = trouble
    got, out, err = models("models", "pull", REPO, "--quiet", HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert got == code and says in err and out == "", err
    assert err.count("mmx:") == 1 and "hint:" in err
    assert models("models", "path", REPO)[0] == 5  # what is not whole is not used
    hub.trouble.clear()
    hub.go_on.set()
    got, out, err = models("models", "pull", REPO)
    assert got == 0, err
    assert (Path(out.strip()) / "model.safetensors").read_bytes() == WEIGHTS
    assert (Path(out.strip()) / "config.json").read_bytes() == FILES["config.json"]


def test_a_pull_that_was_killed_leaves_nothing_that_is_used(models, hub: FakeHub, environment: dict[str, str]) -> None:
    hub.trouble["model.safetensors"] = "stalls"
    patient = environment | {"HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    process = subprocess.Popen([sys.executable, "-m", "mmx", "models", "pull", REPO, "--quiet"], env=patient)
    assert hub.stalled.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.trouble.clear()
    hub.go_on.set()
    code, _, err = models("models", "path", REPO, HF_HUB_OFFLINE="1")
    assert code == 5 and "not" in err
    code, out, err = models("models", "pull", REPO)
    assert code == 0, err
    assert (Path(out.strip()) / "model.safetensors").read_bytes() == WEIGHTS


def test_what_is_not_there_or_not_safe_is_refused(models, hub: FakeHub) -> None:
    code, _, err = models("models", "pull", "org/nothing")
    assert code == 4 and "no such model" in err
    code, _, err = models("models", "pull", "org/pickled")
    assert code == 4 and "only pickles such as pytorch_model.bin" in err and "convert" in err
    code, _, err = models("models", "pull", REPO, HF_HUB_OFFLINE="1")
    assert code == 5 and "network is off" in err
    code, _, err = models("models", "pull", REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert code == 5 and "can't be reached" in err
    assert models("models", "rm", "starter/image")[0] == 2
    assert models("models", "verify", "starter/image")[0] == 0


@pytest.mark.parametrize("what", ["files", "everything"])
def test_a_gated_repository_is_one_whose_licence_is_to_be_accepted(models, hub: FakeHub, what: str) -> None:
    hub.gated[REPO] = what
    code, _, err = models("models", "pull", REPO, "--quiet")
    assert code == 4 and "licence must be accepted" in err and f"/{REPO}" in err and "no such" not in err


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OSError("Consistency check failed: file should be of size 9 but has size 4"), "NetworkError", "cut short"),
        (OSError(28, "No space left on device"), "OutputError", "No space left on device"),
        (OSError(13, "Permission denied", "/data/size-xl/models"), "OutputError", "Permission denied"),
        (OSError("the size of the moon"), "NetworkError", "the size of the moon"),
    ],
)
def test_an_error_is_told_as_what_it_is(error: OSError, kind: str, says: str) -> None:
    from mmx.errors import MmxError
    from mmx.models.hub import _told

    with pytest.raises(MmxError) as raised, _told(REPO):
        raise error
    assert type(raised.value).__name__ == kind and says in raised.value.message
    assert ("cut short" in raised.value.message) == (says == "cut short")


def test_offline_names_what_is_missing(models, hub: FakeHub) -> None:
    folder = Path(models("models", "pull", REPO)[1].strip())
    (folder / "config.json").unlink()
    code, _, err = models("models", "path", REPO, HF_HUB_OFFLINE="1")
    assert code == 5 and "config.json" in err


def test_doctor_finds_a_changed_starter(mmx_in_process, tmp_path: Path, monkeypatch) -> None:
    import shutil

    import mmx.models.store

    code, out, _ = mmx_in_process("doctor", "--json")
    checks = {row["name"]: row for row in map(json.loads, out.splitlines())}
    assert {row["schema"] for row in checks.values()} == {"mmx.doctor/1"}
    assert {"python", "torch", "torchaudio", "ffmpeg", "starter models", "hub cache", "disk"} <= checks.keys()
    assert (
        checks["starter models"]["ok"]
        and checks["torchaudio"]["ok"]
        and (code == 0) == all(c["ok"] for c in checks.values())
    )
    shutil.copytree(ROOT / "assets" / "starter" / "voice2face", tmp_path / "starter" / "voice2face")
    with (tmp_path / "starter" / "voice2face" / "config.json").open("a") as file:
        file.write(" ")
    monkeypatch.setattr(mmx.models.store, "assets", lambda: tmp_path)
    code, out, _ = mmx_in_process("doctor")
    assert code == 4 and "LOOK starter models" in out.decode() and "pip install --force-reinstall mmx" in out.decode()


def test_what_ls_says_of_a_family_is_what_its_decoder_does() -> None:
    from mmx.decoders.pretrained import BY_COMPANION, FAMILIES
    from mmx.models.known import KNOWN

    families = {family.name: family for family in (*FAMILIES.values(), *BY_COMPANION.values())}
    names = {"stable-unclip-2.1": "stable-unclip", "sd15-ip-adapter": "sd-ip-adapter"}
    pictures = [known for known in KNOWN if known.steps]
    assert len(pictures) == 6
    for known in pictures:
        if known.name != "sd15-face-id":  # an IP-Adapter with other weights
            family = families[names.get(known.name, known.name)]
            assert (known.steps, known.guidance, known.resolution) == (family.steps, family.guidance, family.size)
