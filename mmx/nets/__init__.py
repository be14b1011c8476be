"""Plain torch modules: no I/O, no config objects inside."""

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
