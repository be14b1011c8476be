"""From a source medium to target media: one translator a source. Each imports only what its own models need."""

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
