"""Trained bridges, one file a source."""

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
