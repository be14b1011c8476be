"""What a training should find out before it begins, and what it should not stumble over."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import tarfile
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmx.data.manifest import read_manifest
from mmx.errors import ModelError, NetworkError, UsageError
from mmx.extras import EXTRAS
from mmx.faults import unexpected
from mmx.models.store import refuse_push
from tests.conftest import ROOT, training
from tests.small_data import pair_folder, png, wav, write_shard


@pytest.mark.parametrize(
    ("repo", "offline", "answer", "error", "says"),
    [
        ("not a name", False, {}, UsageError, "no repository can be called so"),
        ("me/mine", True, {}, NetworkError, "the network is off"),
        ("me/mine", False, {"auth": {"accessToken": {"role": "read"}}}, ModelError, "may read only"),
        ("me/mine", False, ConnectionError("no route"), NetworkError, "no route"),
        ("me/mine", False, 401, ModelError, "does not accept the login"),
        ("me/mine", False, None, ModelError, "nobody is logged in"),
    ],
)
def test_an_upload_that_can_not_work_is_found_before_the_training(
    monkeypatch, repo: str, offline: bool, answer, error, says: str
) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    def whoami(_: HfApi) -> dict:
        if answer is None:
            raise LocalTokenNotFoundError("no token")
        if isinstance(answer, int):
            raise HfHubHTTPError("refused", response=SimpleNamespace(status_code=answer, headers={}, request=None))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(HfApi, "whoami", whoami)
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(offline)))
    with pytest.raises(error, match=says):
        refuse_push(repo)


def test_who_is_logged_in_may_push(monkeypatch) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(HfApi, "whoami", lambda _: {"name": "me", "auth": {"accessToken": {"role": "write"}}})
    refuse_push("me/mine")


def test_a_training_that_could_not_be_pushed_does_not_begin(mmx_in_process, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("mmx.training.bridges.train.train_bridge", lambda _: pytest.fail("it was trained"))
    command = ("train-bridge", "sound2img", "--data", tmp_path, "-o", tmp_path / "run")
    code, _, err = mmx_in_process(*command, "--push-to-hub", "me/mine", "--offline")
    assert code == 5 and b"--push-to-hub me/mine" in err


@pytest.mark.parametrize(
    "line",
    [
        "eval sound2img --data DATA -o OUT",
        "eval voice2face --data DATA -o OUT",
        "eval img2speech --data DATA -o OUT",
        "train-bridge sound2img --data DATA -o OUT --tensorboard",
        "train-bridge sound2img --data DATA/{0..1}.tar -o OUT",
    ],
)
def test_without_an_extra_a_command_says_what_to_install(
    mmx_in_process, monkeypatch, tmp_path: Path, debug_models, line: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name in EXTRAS else found(name, *rest))
    words = line.replace("DATA", str(tmp_path)).replace("OUT", str(tmp_path / "out")).split()
    if words[0] == "train-bridge":
        words += ["--decoder", str(debug_models[1])]
    code, _, err = mmx_in_process(*words)
    assert code == 2 and b"pip install 'mmx[train]'" in err and not (tmp_path / "out").exists()


def test_a_package_of_an_extra_is_no_bug_wherever_it_is_missing() -> None:
    told = unexpected(ModuleNotFoundError("No module named 'cv2'", name="cv2"))
    assert told.exit_code == 2 and told.hint == "pip install 'mmx[train]'"
    assert "bug" in unexpected(ModuleNotFoundError("No module named 'numpy'", name="numpy")).message


def test_the_extras_bring_what_the_table_says() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought = importlib.metadata.packages_distributions()
    for module, extra in EXTRAS.items():
        names = tuple(
            name.replace("_", "-") for name in brought.get(module, [module])
        )  # the tests' own extra brings not all of them
        assert any(line.startswith(names) for line in declared[extra]), module


def test_what_macos_puts_beside_files_is_no_sample(tmp_path: Path) -> None:
    meta = b'{"concept": "dog", "split": "train"}'
    samples: dict[str, dict[str, bytes]] = {}
    for number in range(2):
        files = {"wav": wav(300 + number, 0.2), "json": meta}
        samples |= {f"._{number}": dict.fromkeys(files, b"\0\5\26\7"), f"{number}": files}
    write_shard(tmp_path / "sounds-000.tar", samples)
    write_shard(tmp_path / "images-000.tar", {"a": {"png": png(1), "json": meta}})
    (tmp_path / "._sounds-000.tar").write_bytes(b"\0\5\26\7")
    manifest = read_manifest(str(tmp_path), "sound2img")
    assert [item.name for item in manifest.sources.items] == ["0", "1"]
    both = tmp_path / "both"
    both.mkdir()
    write_shard(both / "x.tar", {"._a": {"wav": b"\0"}, "a": {"wav": wav(300, 0.2), "png": png(1)}})
    (both / "._x.tar").write_bytes(b"\0\5\26\7")
    manifest = read_manifest(str(both), "sound2img")
    assert [item.name for item in manifest.sources.items] == ["a"]
    with tarfile.open(fileobj=io.BytesIO((both / "x.tar").read_bytes())) as tar:
        assert len(tar.getnames()) == 3  # they were there


def test_without_a_place_for_caches_only_trainings_ask_for_one(
    mmx_in_process, monkeypatch, tmp_path: Path, debug_models, debug_options, bark: Path
) -> None:
    (tmp_path / "home").write_bytes(b"")  # as a home that may only be read: nothing can be made in it
    monkeypatch.setenv("MMX_CACHE", str(tmp_path / "home" / "cache"))
    assert mmx_in_process("sound2img", bark, "-o", tmp_path / "a.png", *debug_options)[0] == 0
    data = pair_folder(tmp_path / "pairs", 12)
    code, _, err = mmx_in_process(*training("sound2img", data, tmp_path / "run", debug_models[1]))
    assert code == 2 and b"--cache or MMX_CACHE names another folder" in err and b"bug" not in err
