"""Training data: from shards, folders and manifests to cached rows and pairs."""

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
