"""Indexes a folder again and again, each time killed a step later, and says what was left: run by test_index.py.

A process of its own, that forks: nothing runs after SIGKILL, and models' threads would not survive a fork.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from mmx.spaces import embedding, indexing
from mmx.spaces.index import ABOUT, Index
from tests.small_space import small_space

STEPS = 60  # more than an update takes


def update(folder: Path, data: Path) -> None:
    indexing.update(folder, small_space(), sorted(data.glob("*.png")))


def killed(folder: Path, data: Path, step: int) -> bool:
    """Whether an update is killed when it is about to make its `step`-th write safe."""
    child = os.fork()
    if child == 0:
        left, fsync = [step], os.fsync

        def dying(file: int) -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(file)

        os.fsync = dying
        update(folder, data)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def rows_of(folder: Path) -> list[str]:
    return sorted(Path(row["path"]).name for shard in Index.open(folder).shards for row in shard.rows())


def main(data: Path, folder: Path) -> None:
    indexing.SHARD, embedding.BATCH = 4, 2
    expected, found = sorted(path.name for path in data.glob("*.png")), []
    for step in range(1, STEPS):
        shutil.rmtree(folder, ignore_errors=True)
        if not killed(folder, data, step):
            break
        there = rows_of(folder) if (folder / ABOUT).exists() else []
        update(folder, data)
        left = {path.name for path in folder.iterdir()} - {shard.name for shard in Index.open(folder).shards}
        found.append({"there": len(there), "whole": rows_of(folder) == expected, "left": sorted(left)})
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
