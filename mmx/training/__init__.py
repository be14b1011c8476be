"""Data, losses, the one loop, checkpoints."""

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
