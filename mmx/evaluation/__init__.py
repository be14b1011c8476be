"""Metrics and protocols; every table has an oracle row and a random row."""

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
