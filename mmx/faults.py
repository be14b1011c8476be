"""What the user is told of an error that is none of ours."""

from __future__ import annotations

from mmx.errors import MmxError, ModelError
from mmx.extras import lacking


def unexpected(error: Exception, name: str = "") -> MmxError:
    """A package or memory that is not there, or a bug, as an error that can be told. name: of the input that it
    happened with.
    """
    if (found := lacking(error)) is not None:
        return found
    at, kind = f"{name}: " if name else "", type(error).__name__
    if kind in ("OutOfMemoryError", "MemoryError"):
        return ModelError(
            f"{at}out of memory", hint="--low-memory, --dtype fp16 or bf16, a smaller --size or -n; or --device cpu"
        )
    first = str(error).splitlines()[0] if str(error) else ""
    return MmxError(f"{at}this is a bug: {kind}: {first}", hint="MMX_DEBUG=1 shows where; please report it")
