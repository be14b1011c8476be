"""A starter teacher's towers and tokenizer on disk, in the transformers library's formats.

They are read without the library, which takes seconds to import. It writes them itself: only who trains one needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmx.compat import quiet_libraries
from mmx.errors import ModelError
from mmx.nets.towers import MOST_TOKENS, ResNet, TextTower

T = TypeVar("T", bound=nn.Module)
PAD, START, END = "<pad>", "<start>", "<end>"  # the ids of the first two are 0 and 1
# what the towers in mmx.nets are written down for: the value of a field in a folder's config.json
SEES = {
    "model_type": "resnet",
    "layer_type": "basic",
    "hidden_act": "relu",
    "num_channels": 3,
    "downsample_in_first_stage": False,
}
READS = {
    "model_type": "clip_text_model",
    "hidden_act": "quick_gelu",
    "eos_token_id": 2,  # by which the library, too, reads a text at its highest id
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
}


class TextReader:
    """Texts → token ids, of a byte-level vocabulary that any text can be written in.

    length: of the longest text, in tokens; what is longer loses its end.
    """

    def __init__(self, tokenizer: Tokenizer, length: int = MOST_TOKENS) -> None:
        self.tokenizer, self.length = tokenizer, length
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(pad_id=0, pad_token=PAD)

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts → ids and which of them are no padding (B, L), L that of the longest."""
        rows = self.tokenizer.encode_batch(list(texts))
        return torch.tensor([row.ids for row in rows]), torch.tensor([row.attention_mask for row in rows])

    def begun(self, text: str, at: int) -> int:
        """How many tokens, without the start, of a text end at its character `at` or before."""
        return sum(0 < end <= at for _, end in self.tokenizer.encode(text).offsets)

    def of_library(self) -> Any:
        """The same as the transformers library's class."""
        from transformers import PreTrainedTokenizerFast

        plain = Tokenizer.from_str(self.tokenizer.to_str())
        plain.no_padding()
        plain.no_truncation()
        return PreTrainedTokenizerFast(
            tokenizer_object=plain, pad_token=PAD, bos_token=START, eos_token=END, model_max_length=self.length
        )

    def save(self, folder: Path) -> None:
        """Write the folder that `load`, and the library, read."""
        self.of_library().save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path, length: int = MOST_TOKENS) -> TextReader:
        """Read a folder that `save` wrote. length: that of the tower's texts. Raises ModelError."""
        try:
            return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), length)
        except Exception as error:  # the library has no class of its own for a file that it can't read
            raise ModelError(f"{folder}: the tokenizer can't be loaded: {str(error).splitlines()[0]}") from None


def load_resnet(folder: Path) -> ResNet:
    """What sees, float32. Raises ModelError."""
    config = _config(folder, SEES)
    return _filled(lambda: ResNet(config["hidden_sizes"], config["depths"]), folder)


def load_text_tower(folder: Path) -> TextTower:
    """What reads, float32. Raises ModelError."""
    config = _config(folder, READS)
    sizes = {ours: config[theirs] for ours, theirs in TEXT_SIZES.items()}
    return _filled(lambda: TextTower(**sizes), folder)


# an argument of TextTower → the field of the library's config
TEXT_SIZES = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "inner": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "dim": "projection_dim",
    "length": "max_position_embeddings",
}


def _config(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """A tower's config.json. Raises ModelError for one that is no tower of ours."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    except (OSError, ValueError):
        raise ModelError(f"{folder} is no tower of a teacher: it has no config.json that can be read") from None
    other = {name: config[name] for name, value in wanted.items() if config.get(name, value) != value}
    if other:
        name, value = next(iter(other.items()))
        raise ModelError(f"{folder}: a tower with {name} = {value!r}, where starter teachers have {wanted[name]!r}")
    return config


def empty(build: Callable[[], T]) -> T:
    """A module without weights, for those that are there already: nothing is drawn, and nothing is copied."""
    with torch.device("meta"):
        return build()


def _filled(build: Callable[[], T], folder: Path) -> T:
    """A module with a folder's weights, float32. Raises ModelError."""
    try:
        with torch.random.fork_rng([]):  # not on the meta device: initial weights there import torch's compiler
            net = build()
        weights = load_file(folder / "model.safetensors")
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()}, assign=True)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the tower can't be loaded: {str(error).splitlines()[0]}") from None
    return net


def fresh_resnet(widths: Sequence[int], depths: Sequence[int]) -> ResNet:
    """With the initial weights that the library gives it."""
    return _filled_from(_library_resnet(widths, depths), lambda: ResNet(widths, depths))


def fresh_text_tower(**sizes: int) -> TextTower:
    """With the initial weights that the library gives it. sizes: arguments of TextTower."""
    return _filled_from(_library_text_tower(**sizes), lambda: TextTower(**sizes))


def _filled_from(theirs: nn.Module, build: Callable[[], T]) -> T:
    net = empty(build)
    net.load_state_dict(theirs.state_dict(), assign=True)
    return net


def save_resnet(net: ResNet, folder: Path) -> None:
    """Write it as the library does, in the type that it has."""
    _write(empty(lambda: _library_resnet(net.widths, net.depths)), net, folder)


def save_text_tower(net: TextTower, folder: Path) -> None:
    """Write it as the library does, in the type that it has."""
    _write(empty(lambda: _library_text_tower(**net.sizes)), net, folder)


def _write(theirs: Any, ours: nn.Module, folder: Path) -> None:
    quiet_libraries("transformers")
    theirs.load_state_dict(ours.state_dict(), assign=True)
    theirs.save_pretrained(folder)


def _library_resnet(widths: Sequence[int], depths: Sequence[int]) -> Any:
    from transformers import ResNetConfig, ResNetModel

    sizes = {"embedding_size": widths[0], "hidden_sizes": list(widths), "depths": list(depths)}
    return ResNetModel(ResNetConfig(**sizes, layer_type="basic"))


def _library_text_tower(**sizes: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    theirs = {TEXT_SIZES[name]: size for name, size in sizes.items()}
    tokens = {"max_position_embeddings": MOST_TOKENS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return CLIPTextModelWithProjection(CLIPTextConfig(**(tokens | theirs)))
