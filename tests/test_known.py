"""Full-size models by name: nothing is fetched that nothing reads, and nothing deleted that another model reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest

from mmx.decoders.pretrained import HubDecoder
from mmx.errors import ModelError
from mmx.models.known import KNOWN, find_known
from mmx.models.store import Located
from tests import tiny
from tests.fake_hub import COMMIT, FakeHub, environment_of, runner
from tests.hub_listings import LISTINGS, published

SD15, SDXL, ADAPTER = list(LISTINGS)[:3]
ARC2FACE = "FoivosPar/Arc2Face"


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    hub = FakeHub(published())
    hub.repos[ARC2FACE]["encoder/model.safetensors"] = b"as somebody converted it"
    with hub.serving() as address:
        hub.address = address
        yield hub


@pytest.fixture
def mmx(hub: FakeHub, tmp_path: Path):
    hub.downloads.clear()
    return runner(environment_of(hub.address, tmp_path))


def on_disk(tmp_path: Path, repo: str) -> set[str]:
    """The weights of a repository that are in the cache."""
    folder = tmp_path / "cache" / f"models--{repo.replace('/', '--')}"
    found = {"/".join(path.relative_to(folder).parts[2:]) for path in folder.glob("snapshots/*/**/*") if path.is_file()}
    return {name for name in found if Path(name).suffix in (".safetensors", ".onnx", ".bin", ".ckpt")}


def test_a_pull_fetches_what_is_read_and_no_variant(mmx, hub: FakeHub, tmp_path: Path) -> None:
    net = "diffusion_pytorch_model.safetensors"
    code, _, err = mmx("models", "pull", "sdxl-ip-adapter", "--quiet")
    assert code == 0, err
    towers = {"text_encoder/model.safetensors", "text_encoder_2/model.safetensors"}
    assert on_disk(tmp_path, SDXL) == {f"unet/{net}", f"vae/{net}"} | towers
    xl = {"sdxl_models/ip-adapter_sdxl.safetensors", "sdxl_models/image_encoder/model.safetensors"}
    assert on_disk(tmp_path, ADAPTER) == xl
    code, out, err = mmx("models", "pull", "sd15-ip-adapter", "--quiet")
    assert code == 0, err
    assert on_disk(tmp_path, SD15) == {f"unet/{net}", f"vae/{net}", "text_encoder/model.safetensors"}
    sd = {"models/ip-adapter_sd15.safetensors", "models/image_encoder/model.safetensors"}
    assert on_disk(tmp_path, ADAPTER) == xl | sd
    for model in ("sd15-ip-adapter", "sdxl-ip-adapter"):
        code, _, err = mmx("models", "path", model, HF_HUB_OFFLINE="1")
        assert code == 0, err
    hub.commit = "d" * 40  # published again, and pulled for one of the two
    assert mmx("models", "pull", "sdxl-ip-adapter", "--quiet")[0] == 0
    assert mmx("models", "path", "sd15-ip-adapter", HF_HUB_OFFLINE="1")[0] == 0
    hub.commit = COMMIT
    folder = Path(out.splitlines()[0])
    assert {"model_index.json", "README.md"} <= {path.name for path in folder.iterdir()}
    assert {path.name for path in (folder / "tokenizer").iterdir()} >= {"vocab.json", "merges.txt"}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("sd15-face-id", "no ip-adapter-faceid_sd15.safetensors, only pickles such as ip-adapter-faceid_sd15.bin"),
        ("arc2face", "no encoder/model.safetensors, only pickles such as encoder/pytorch_model.bin"),
    ],
)
def test_what_is_published_as_a_pickle_only_is_refused_before_anything_is_fetched(
    mmx, hub: FakeHub, tmp_path: Path, model: str, says: str
) -> None:
    converted = hub.repos[ARC2FACE].pop("encoder/model.safetensors")
    try:
        code, _, err = mmx("models", "pull", model)
    finally:
        hub.repos[ARC2FACE]["encoder/model.safetensors"] = converted
    assert code == 4 and says in err and "convert" in err and hub.downloads == []
    assert not (tmp_path / "cache" / f"models--{SD15.replace('/', '--')}").exists()


def test_rm_leaves_what_another_model_reads(mmx, tmp_path: Path) -> None:
    for model in ("sd15-ip-adapter", "arc2face"):
        code, _, err = mmx("models", "pull", model, "--quiet")
        assert code == 0, err
    net = "diffusion_pytorch_model.safetensors"
    assert on_disk(tmp_path, ARC2FACE) == {f"arc2face/{net}", "encoder/model.safetensors", "arcface.onnx"}
    before = on_disk(tmp_path, SD15)
    code, _, err = mmx("models", "rm", "sdxl-ip-adapter")
    assert code == 4 and f"{SDXL} is not on disk" in err
    assert on_disk(tmp_path, ADAPTER) and on_disk(tmp_path, SD15) == before  # nothing deleted before all is found
    code, _, err = mmx("models", "rm", "sd15-ip-adapter")
    assert code == 0 and "what arc2face also reads stays" in err, err
    assert on_disk(tmp_path, SD15) == {f"vae/{net}"} and not on_disk(tmp_path, ADAPTER)
    assert mmx("models", "verify", "arc2face", HF_HUB_OFFLINE="1")[0] == 0
    assert mmx("models", "path", "sd15-ip-adapter", HF_HUB_OFFLINE="1")[0] == 5
    code, _, err = mmx("models", "rm", "arc2face")
    assert code == 0 and "stays" not in err and not on_disk(tmp_path, SD15)


def test_ls_says_on_disk_of_what_is_there_whole(mmx, hub: FakeHub) -> None:
    def rows() -> dict:
        return {row["name"]: row for row in map(json.loads, mmx("models", "ls", "--json")[1].splitlines())}

    assert mmx("models", "pull", "arc2face", "--quiet")[0] == 0
    assert mmx("models", "pull", ADAPTER, "--quiet")[0] == 0
    found = rows()
    assert found["arc2face"]["on_disk"] and not found["sd15-ip-adapter"]["on_disk"]  # only the base's VAE is there
    assert not found["sdxl-ip-adapter"]["on_disk"] and ADAPTER not in found
    assert all(row.keys() == found["arc2face"].keys() for row in found.values())
    assert b"arc2face" in mmx("models", "ls")[1].encode()


def test_every_selection_is_of_what_is_published() -> None:
    for known in KNOWN:
        for repo in known.repos:
            if repo.name in LISTINGS and known.name not in ("sd15-face-id", "arc2face"):
                chosen = [name for name in LISTINGS[repo.name] if any(fnmatch(name, p) for p in repo.weights)]
                assert len(chosen) == len(repo.weights), (known.name, chosen)


@pytest.mark.parametrize("family", ["unclip", "ip-adapter"])
def test_what_else_lies_beside_a_decoder_is_not_of_its_space(tmp_path: Path, family: str) -> None:
    """Bridges of older versions, for which all that lay there was of it, drive it nevertheless."""
    folders = (tiny.unclip(tmp_path),) if family == "unclip" else tiny.sd(tmp_path)
    at, holder = Located("a", *folders), folders[-1]
    before = HubDecoder.load(at).spec
    assert before.fingerprint == before.former and "former" not in before.as_dict()  # as it was
    encoder = next(path for path in holder.rglob("image_encoder"))
    shutil.copy(encoder / "model.safetensors", encoder / "model.fp16.safetensors")
    if family == "ip-adapter":
        (holder / "sdxl_models").mkdir()
        shutil.copy(encoder / "model.safetensors", holder / "sdxl_models" / "ip-adapter_sdxl.safetensors")
    after = HubDecoder.load(at).spec
    assert after == before and after.former != before.fingerprint
    before.require(after, bridge="of this version")
    replace(before, fingerprint=after.former).require(after, bridge="of an older version")
    with pytest.raises(ModelError, match="was trained for"):
        replace(before, fingerprint="0" * 64).require(after, bridge="of another decoder")


@pytest.mark.parametrize("model", ["kandinsky-2.2", "stable-unclip-2.1", "sd15-ip-adapter", "arc2face"])
def test_a_decoder_loads_from_what_is_fetched(tmp_path: Path, model: str) -> None:
    make = {"kandinsky-2.2": tiny.kandinsky, "stable-unclip-2.1": tiny.unclip, "arc2face": tiny.arc2face}
    made = make.get(model, tiny.sd)(tmp_path)
    folders = made if isinstance(made, tuple) else (made,)
    for folder, repo in zip(folders, find_known(model).repos, strict=True):
        for path in (p for p in folder.rglob("*") if p.is_file()):
            if not any(fnmatch(path.relative_to(folder).as_posix(), pattern) for pattern in repo.patterns):
                path.unlink()
    assert HubDecoder.load(Located(model, *folders)).spec.shape == (12,)
