"""S3's own protocol, as a server on this machine speaks it: what is read and written, and what is not made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmx.cli.ledger import Ledger
from mmx.errors import DiskError, InputError, UsageError
from mmx.media.stores import Place, Store, expand, plan

NAMES = ("a b+ü%.wav", "bark.wav", "deep/sea.wav")


@pytest.fixture
def bucket(s3: Any, bark: Path) -> Any:
    """A file system with three sounds in a bucket."""
    for name in NAMES:
        s3.pipe_file(f"bucket/in/{name}", bark.read_bytes())
    return s3


def test_what_is_in_a_bucket_is_read_and_written(bucket: Any, bark: Path) -> None:
    found = expand(["s3://bucket/in"], "sound")
    assert [source.name for source in found] == [f"s3://bucket/in/{name}" for name in NAMES]
    assert all(source.read() == bark.read_bytes() for source in found)
    assert [source.name for source in expand(["s3://bucket/in/*.wav"], "sound")] == [s.name for s in found[:2]]
    for nothing in ("s3://bucket/nothing", "s3://nobody/in"):
        with pytest.raises(UsageError, match="no such object"):
            expand([nothing], "sound")
    places = [own for (own,) in plan(found, "s3://bucket/out", 1, ".png")]
    for place in places:
        assert not place.exists()
        place.write(place.inside.encode())
    assert [bucket.cat(f"bucket/out/{place.inside}") for place in places] == [p.inside.encode() for p in places]
    with pytest.raises(InputError, match="no such object"):
        Store("s3://bucket").read("s3://bucket/nothing.wav")


def test_a_bucket_that_is_not_there_is_not_made(bucket: Any) -> None:
    with pytest.raises(DiskError, match="no such bucket"):
        Place(None, Store("s3://typo/out"), "a.png").write(b"x")
    assert bucket.ls("", refresh=True) == ["bucket"]


def test_a_ledger_is_kept_there(bucket: Any) -> None:
    place = Place(None, Store("s3://bucket/out"), "a.png")
    place.write(b"x")
    ledger = Ledger("s3://bucket/out")
    ledger.add("key", [place])
    ledger.close()
    assert Ledger("s3://bucket/out").has("key", [Place(None, Store("s3://bucket/out"), "a.png")])
    assert not Ledger("s3://bucket/out").has("other", [place])


def test_a_batch_from_and_to_a_bucket(mmx_in_process, bucket: Any, one_step_options, bark: Path, tmp_path) -> None:
    line = ("sound2img", *one_step_options, "--device", "cpu")
    code, _, err = mmx_in_process(*line, "s3://bucket/in", "-o", "s3://bucket/out", "--resume")
    assert code == 0, err.decode()
    assert mmx_in_process(*line, bark, "-o", tmp_path / "bark.png")[0] == 0
    assert bucket.cat("bucket/out/bark.png") == (tmp_path / "bark.png").read_bytes()
    again = mmx_in_process(*line, "s3://bucket/in", "-o", "s3://bucket/out", "--resume")
    assert again[0] == 0 and again[2].count(b"already done") == 3
    code, _, err = mmx_in_process(*line, "s3://bucket/in", "-o", "s3://typo/out")
    assert code == 2 and err.count(b"no such bucket") == 1, err.decode()
