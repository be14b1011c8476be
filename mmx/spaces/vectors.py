"""Vectors as one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mmx.spaces.base import Space


def vector_bytes(space: Space, rows: Sequence[tuple[dict[str, Any], Tensor]]) -> bytes:
    """Rows (what they are, vector (D,)) → a safetensors file.

    It holds `vectors` (N, D), float32, and in its metadata under `mmx`, as JSON, the space and the rows.
    """
    about = {
        "schema": "mmx.vectors/1",
        "space": space.name,
        "fingerprint": space.fingerprint,
        "rows": [row for row, _ in rows],
    }
    # one entry: of several the library writes another order each time
    return save({"vectors": torch.stack([vector for _, vector in rows])}, metadata={"mmx": json.dumps(about)})
