"""Memory that tensors free is kept."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

PAGES = """
import resource, sys
import torch
from mmx.training.engine.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(25):
    if number == 5:
        before = count()
    block = torch.ones(16 << 20)  # 64 MB, taken and freed each time
    del block
print((count() - before) // 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_not_taken_anew_from_the_kernel() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", PAGES, how], cwd=ROOT, capture_output=True, text=True, check=True)
        return int(done.stdout)

    usual, kept = faults("usual"), faults("kept")
    assert kept < 100 and kept < usual / 10
