"""Vectors as one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from safetensors.numpy import save

from mmx.spaces.question import Facts


def vector_bytes(space: Facts, rows: Sequence[tuple[dict[str, Any], bytes]]) -> bytes:
    """Rows (what they are, vector (D,) as float32) → a safetensors file.

    It holds `vectors` (N, D), float32, and in its metadata under `mmx`, as JSON, the space and the rows.
    """
    about = {
        "schema": "mmx.vectors/1",
        "space": space.name,
        "fingerprint": space.fingerprint,
        "rows": [row for row, _ in rows],
    }
    vectors = np.frombuffer(b"".join(vector for _, vector in rows), np.float32).reshape(len(rows), space.dim)
    # one entry: of several the library writes another order each time
    return save({"vectors": vectors}, metadata={"mmx": json.dumps(about)})
