"""Frozen decoders, one file a family."""

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
