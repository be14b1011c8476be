"""Content Credentials: verified by C2PA's own reader, looked past by reproduce, and what is left of them elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmx.errors import InputError, UsageError
from mmx.media.animation import mp4_bytes
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.credentials import is_signed, kind_of, unsigned
from mmx.media.image import png_bytes
from mmx.media.provenance import dumps, embed_wav, read_record, text_chunks
from tests.conftest import ROOT, tone
from tests.test_options import artifact

RECORD = read_record(artifact(), "made")


def made(kind: str) -> bytes:
    """An artifact of a kind, with a record."""
    if kind == "png":
        return png_bytes(Image.new("RGB", (16, 16), "red"), text_chunks(RECORD))
    if kind == "wav":
        return embed_wav(wav_bytes(Waveform(tone(0.2), 16_000)), RECORD)
    return mp4_bytes([Image.new("RGB", (32, 32), (k * 60, 0, 0)) for k in range(4)], 0.1, dumps(RECORD))


@pytest.mark.parametrize("kind", ["png", "wav", "mp4"])
def test_what_is_not_signed_stays_as_it_is(kind: str) -> None:
    data = made(kind)
    assert unsigned(data) == data and not is_signed(data)
    for cut in range(0, len(data), 7):
        assert unsigned(data[:cut]) == data[:cut]
    assert unsigned(b"GIF89a") == b"GIF89a"


def test_a_chunk_that_lies_about_its_size_is_left_alone() -> None:
    for kind in ("png", "wav", "mp4"):
        data = bytearray(made(kind))
        for at in range(8, len(data) - 4, 11):
            broken = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
            assert len(unsigned(bytes(broken))) <= len(data)


@pytest.fixture
def credentials() -> Any:
    pytest.importorskip("c2pa")
    from mmx.media import credentials

    return credentials


@pytest.mark.parametrize("kind", ["png", "wav", "mp4"])
def test_a_signed_file_is_verified_and_its_record_and_media_are_what_they_were(credentials, kind: str) -> None:
    data = made(kind)
    signed = credentials.sign(data, RECORD, f"a.{kind}", credentials.self_signed())
    about = credentials.verified(signed)
    assert about["state"] == "Valid" and about["by"] == credentials.SELF_SIGNED
    assert about["problems"] == ["signingCredential.untrusted"]
    assert is_signed(signed) and unsigned(signed) == data and read_record(signed, "a") == RECORD
    again = credentials.sign(signed, RECORD, f"a.{kind}", credentials.self_signed())
    assert unsigned(again) == data  # signed once, not twice
    middle = len(signed) - (6 if kind == "png" else len(data) // 3)
    tampered = signed[:middle] + bytes([signed[middle] ^ 1]) + signed[middle + 1 :]
    assert credentials.verified(tampered)["state"] == "Invalid"


def test_it_says_that_a_model_made_it(credentials) -> None:
    import c2pa

    signed = credentials.sign(made("png"), RECORD, "a.png", credentials.self_signed())
    found = json.loads(c2pa.Reader("image/png", io.BytesIO(signed)).json())
    (about,) = found["manifests"].values()
    (action,) = next(a for a in about["assertions"] if a["label"].startswith("c2pa.actions"))["data"]["actions"]
    assert action["digitalSourceType"].endswith("trainedAlgorithmicMedia") and "Synthetic" in action["description"]


def test_only_what_takes_them_and_only_by_a_key_that_fits(credentials) -> None:
    mine, other = credentials.self_signed(), credentials.self_signed()
    with pytest.raises(InputError, match="PNG, WAV and MP4"):
        credentials.sign(b"GIF89a", RECORD, "a.gif", mine)
    assert credentials.identity(mine.chain, mine.key) == mine
    with pytest.raises(UsageError, match="--key"):
        credentials.identity(mine.chain, b"no key")
    with pytest.raises(UsageError, match="not signed"):
        credentials.sign(made("png"), RECORD, "a.png", credentials.Identity(b"no certificate", other.key))


def test_sign_inspect_and_reproduce(credentials, mmx_in_process, one_step_options, bark: Path, tmp_path: Path) -> None:
    plain, signed = tmp_path / "a.png", tmp_path / "signed.png"
    assert mmx_in_process("sound2img", bark, "-o", plain, *one_step_options)[0] == 0
    mine = credentials.self_signed()
    (tmp_path / "chain.pem").write_bytes(mine.chain)
    (tmp_path / "key.pem").write_bytes(mine.key)
    own = ("--certificate", tmp_path / "chain.pem", "--key", tmp_path / "key.pem")
    code, out, _ = mmx_in_process("sign", plain, "-o", signed, "--json", *own)
    assert code == 0 and json.loads(out)["self_signed"] is False
    code, _, err = mmx_in_process("sign", plain, "-o", signed, "--overwrite")
    assert code == 0 and b"nobody vouches" in err
    code, out, _ = mmx_in_process("inspect", signed)
    assert code == 0 and b"Content Credentials: valid, by mmx, self-signed" in out
    assert json.loads(mmx_in_process("inspect", signed, "--json")[1])["credentials"]["state"] == "Valid"
    assert mmx_in_process("reproduce", signed, bark, *one_step_options)[0] == 0
    assert mmx_in_process("sign", plain, "-o", signed)[0] == 2
    assert mmx_in_process("sign", plain, "-o", tmp_path / "b.png", *own[:2])[0] == 2
    assert mmx_in_process("sign", bark, "-o", tmp_path / "b.wav")[0] == 3


def survives(data: bytes) -> list[str]:
    """Whether Content Credentials, and the record, are there still."""
    try:
        record = read_record(data, "a") == RECORD
    except InputError:
        record = False
    whole = kind_of(data) is not None and is_signed(data)
    return ["yes" if there else "no" for there in (whole, record)]


def converted(signed: dict[str, bytes]) -> dict[str, bytes]:
    """What other programs make of signed files."""
    picture = Image.open(io.BytesIO(signed["png"]))
    samples, rate = soundfile.read(io.BytesIO(signed["wav"]))
    jpeg, png, mp3, wav = (io.BytesIO() for _ in range(4))
    picture.save(jpeg, "JPEG")
    picture.save(png, "PNG")
    soundfile.write(mp3, np.asarray(samples), rate, format="MP3")
    soundfile.write(wav, samples, rate, format="WAV")
    saved = {"PNG saved as JPEG": jpeg, "PNG saved again": png, "WAV saved as MP3": mp3, "WAV saved again": wav}
    return {"copied": signed["png"]} | {name: file.getvalue() for name, file in saved.items()}


def test_the_readme_says_what_survives(credentials) -> None:
    signed = {kind: credentials.sign(made(kind), RECORD, "a", credentials.self_signed()) for kind in ("png", "wav")}
    rows = [f"| {name} | {' | '.join(survives(data))} |" for name, data in converted(signed).items()]
    assert "\n".join(rows) in (ROOT / "README.md").read_text(encoding="utf8"), "\n".join(rows)
