"""What a decoder is: the space it listens to, its teacher, and conditioning → media."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmx.digest import sha256_of_file
from mmx.errors import ModelError


@dataclass(frozen=True)
class ConditioningSpec:
    """What a decoder listens to.

    name: such as "starter-image/embedding". shape: without the batch; (D,), (N, D), or (N,) for discrete units.
    mean_norm: mean L2 norm of the teacher's raw embeddings; a unit-norm bridge output is rescaled by it.
    fingerprint: sha256 over the weights and configs of the teacher, which define the space; decoders of one space swap
    freely.
    former: of a decoder of the hub, its fingerprint in bridges of versions that counted files which nothing reads.
    """

    name: str
    shape: tuple[int, ...]
    mean_norm: float
    fingerprint: str
    former: str = field(default="", compare=False)

    def as_dict(self) -> dict[str, Any]:
        """As bridges keep it."""
        values = asdict(self) | {"shape": list(self.shape)}
        del values["former"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ConditioningSpec:
        return cls(values["name"], tuple(values["shape"]), float(values["mean_norm"]), values["fingerprint"])

    def require(self, other: ConditioningSpec, *, bridge: str) -> None:
        """Raise ModelError unless `other`, a decoder's spec, is the one a bridge was trained for."""
        if self.shape != other.shape or self.fingerprint not in (other.fingerprint, other.former):
            raise ModelError(
                f"bridge {bridge} was trained for {self.name} {list(self.shape)}, not for {other.name} {list(other.shape)}",
                hint=f"give the decoder with fingerprint {self.fingerprint[:12]}, or train a bridge for this one (this one has {other.fingerprint[:12]})",
            )


class Decoder(Protocol):
    """Frozen; conditioning → media. `options` differ between families and are listed by `defaults`."""

    spec: ConditioningSpec
    defaults: dict[str, Any]

    def targets(self, media: Sequence[Any]) -> Tensor:
        """The teacher: real media → their conditioning (B, *spec.shape), raw."""
        ...

    def decode(self, conditioning: Tensor, *, generators: Sequence[torch.Generator], **options: Any) -> list[Any]:
        """Conditioning (B, *spec.shape), raw → one medium an item; item i draws from generators[i] alone."""
        ...


def fingerprint(folder: Path, parts: Sequence[str], *, variants: bool = True) -> str:
    """sha256 over the relative names and bytes of config and weight files: `parts` of `folder`, and what lies below them.

    variants: of weights that are there in several precisions all, and not only those that are read.
    """
    digest = hashlib.sha256()
    places = [folder / part for part in parts]
    for path in sorted(path for place in places for path in (place, *place.rglob("*"))):
        if path.suffix in (".json", ".safetensors") and (variants or not _is_variant(path)):
            digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def _is_variant(path: Path) -> bool:
    """Whether weights such as model.fp16.safetensors lie beside model.safetensors."""
    stem = path.name.partition(".")[0]
    return path.name.count(".") > 1 and path.with_name(f"{stem}{path.suffix}").exists()


def keep_small(path: Path, prefix: str = "") -> None:
    """Store the matrices of a safetensors file whose names begin with `prefix` as float8 (e4m3): half of float16's bytes.

    Whatever loads them gets them in the type that it computes in, as from float16. Of the starter's pictures no eye tells: those of both
    agree to 40 dB and more.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, value in tensors.items():
        if value.dim() >= 2 and value.is_floating_point() and name.startswith(prefix):
            tensors[name] = value.to(torch.float8_e4m3fn)
    save_file(tensors, path, about)


def freeze(module: nn.Module) -> nn.Module:
    """Eval mode and no gradients, for every part of a decoder."""
    return module.eval().requires_grad_(False)
