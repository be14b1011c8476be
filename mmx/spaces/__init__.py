"""Joint embeddings: several modalities in one space, where they are tagged, indexed and searched."""

from __future__ import annotations
