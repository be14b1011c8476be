"""What a decoder is: the space it listens to, its teacher, and conditioning → media."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmx.device import Placed
from mmx.digest import sha256_of_file
from mmx.errors import ModelError, UsageError
from mmx.models.store import CALIBRATION


@dataclass(frozen=True)
class ConditioningSpec:
    """What a decoder listens to.

    name: such as "starter-image/embedding". shape: without the batch; (D,), (N, D), or (N,) for discrete units.
    mean_norm: mean L2 norm of the teacher's raw embeddings; a unit-norm bridge output is rescaled by it.
    fingerprint: sha256 over the weights and configs of the teacher, which define the space; decoders of one space swap
    freely.
    former: its fingerprint in bridges of versions that counted files which have no part in the space.
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

    def refuse_misfit(self, conditioning: Tensor) -> None:
        """Raise UsageError for a conditioning (B, ...) of another shape."""
        if conditioning.shape[1:] != self.shape:
            raise UsageError(
                f"{self.name} listens to {list(self.shape)}, and was given {list(conditioning.shape[1:])}",
                hint="give the bridge that was trained for it",
            )

    def require(self, other: ConditioningSpec, *, bridge: str) -> None:
        """Raise ModelError unless `other`, a decoder's spec, is the one a bridge was trained for."""
        if self.shape != other.shape or self.fingerprint not in (other.fingerprint, other.former):
            raise ModelError(
                f"bridge {bridge} was trained for {self.name} {list(self.shape)}, "
                f"not for {other.name} {list(other.shape)}",
                hint=f"give the decoder with fingerprint {self.fingerprint[:12]}, or train a bridge for this one "
                f"(this one has {other.fingerprint[:12]})",
            )


# a text → one raw conditioning (D,) on the CPU; what the text leaves open is drawn from the generator
TextPrior = Callable[[str, torch.Generator], Tensor]


class Teacher(Protocol):
    """Frozen; real media → their conditioning, on the CPU wherever it computes. What it cannot do, it refuses with a
    ModelError.

    has_texts: whether its space has texts, too. names_faces: whether it names the gender of a face by its feature.
    image_size: pixels of a side of the pictures that it looks at; 0 where it looks at none.
    """

    has_texts: bool
    names_faces: bool
    image_size: int

    def to(self, device: str, dtype: torch.dtype) -> None:
        """Move it."""
        ...

    def embed(self, media: Sequence[Any]) -> Any:
        """Real media → raw conditioning (B, *shape) float32; discrete units one tensor (L,) a medium."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts → unit-norm points (B, D) float32 of the same space."""
        ...

    def are_far(self, texts: Sequence[str]) -> list[bool]:
        """Whether texts lie far from everything that the space was trained on; none does where nobody measured that."""
        ...

    def gender_shares(self, raw: Tensor) -> Tensor:
        """Raw features (B, D) → probabilities (B, genders)."""
        ...

    def suggest(self, raw: Tensor) -> list[tuple[str, float]]:
        """What a raw feature (D,) suggests, with probabilities, the likelier first; nothing where it names no faces."""
        ...


class Decoder(Protocol):
    """Frozen; conditioning → media. It takes and gives what lies on the CPU, and moves it itself.

    defaults: its options of `decode`, which differ between families. max_batch: items decoded at once.
    """

    spec: ConditioningSpec
    defaults: dict[str, Any]
    teacher: Teacher
    max_batch: int

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def networks(self) -> list[nn.Module]:
        """All that it and its teacher compute with: what must be the same after any training."""
        ...

    def targets(self, media: Sequence[Any]) -> Any:
        """The teacher: real media → their conditioning, raw, on the CPU."""
        ...

    def decode(self, conditioning: Any, *, generators: Sequence[torch.Generator] = (), **options: Any) -> list[Any]:
        """Raw conditioning (B, *shape), or units (L,) of each → one medium an item; item i draws from
        generators[i] alone.
        """
        ...

    def paint(self, conditioning: Tensor, *, generators: Sequence[torch.Generator], **options: Any) -> Tensor:
        """As `decode`, but pixels (B, 3, S, S) in about [-1, 1], where it computes, with gradients to the conditioning.

        Raises ModelError where its media have none.
        """
        ...

    def first_layer(self, conditioning: Tensor) -> Tensor:
        """What it makes of conditionings (B, *shape) first, flat (B, N), with gradients: what voices are compared by
        (Speech2Face, Oh et al. 2019). Raises ModelError where there is no such layer.
        """
        ...

    def text_prior(self) -> TextPrior | None:
        """The family's own prior; None where a bridge's is one. Raises ModelError where there is neither."""
        ...

    def to(self, device: str, dtype: torch.dtype = torch.float32) -> Decoder:
        """Move every part to a device and a dtype."""
        ...

    def place(self, where: Placed, *, low_memory: bool = False, compile: bool = False) -> Decoder:
        """As `to`. low_memory: parts come to the device when they are needed, items one by one. compile:
        compile what draws.
        """
        ...


def fingerprint(folder: Path, parts: Sequence[str], *, variants: bool = True) -> str:
    """sha256 over the relative names and bytes of config and weight files: `parts` of `folder`, and what lies below
    them.

    variants: of weights that are there in several precisions all, and not only those that are read.
    """
    digest = hashlib.sha256()
    places = [folder / part for part in parts]
    for path in sorted(path for place in places for path in (place, *place.rglob("*"))):
        if path.name == CALIBRATION:
            continue
        if path.suffix in (".json", ".safetensors") and (variants or not _is_variant(path)):
            digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the names, types, shapes and bytes of tensors, wherever they are."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _is_variant(path: Path) -> bool:
    """Whether weights such as model.fp16.safetensors lie beside model.safetensors."""
    stem = path.name.partition(".")[0]
    return path.name.count(".") > 1 and path.with_name(f"{stem}{path.suffix}").exists()


def keep_small(path: Path, prefix: str = "") -> None:
    """Store the matrices of a safetensors file whose names begin with `prefix` as float8 (e4m3): half of float16's
    bytes.

    Whatever loads them gets them in the type that it computes in, as from float16. Of the starter's pictures no eye
    tells: those of both agree to 40 dB and more.
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
