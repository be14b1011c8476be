"""Causal language models: GPT-2's format by a network of our own, any other by the transformers library.

What guides them sees one signature: ids in, logits and cached keys and values out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from mmx.compat import quiet_libraries
from mmx.decoders.base import freeze
from mmx.decoders.towers import END, PAD, START, TextReader, empty
from mmx.device import Placed
from mmx.digest import sha256
from mmx.errors import ModelError
from mmx.models.store import Located, locate
from mmx.nets.gpt import Cache, TiedLanguageModel

# what our network is written down for: the value of a field in config.json, where that has one
WRITTEN = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "n_inner": None,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
    "add_cross_attention": False,
}
SIZES = {"vocabulary": "vocab_size", "length": "n_positions", "width": "n_embd", "layers": "n_layer", "heads": "n_head"}

RATE, LAYERS = 0.3, 24  # the size of a step in ZeroCap, and the layers of its GPT-2
RATE_FIELD, TUNED_RATE = "caption_rate", 10.0  # in config.json: of the starter's size, tuned on val
WORD = ("Ġ", "▁", " ")  # how byte-level and sentencepiece vocabularies mark the beginning of a word
# ids (B, L), which follow on cached keys and values, then one → logits (B, L, V) of what comes after each, float32, and
# keys and values (B, H, L, C) of all, of each layer
Causal = Callable[[Tensor, Cache | None], tuple[Tensor, Cache]]


@dataclass(frozen=True)
class LanguageModel:
    """A frozen causal language model and its tokenizer.

    start: the id that texts begin with, None where there is none. ends: ids after which a text is over. length: tokens
    that it reads at most. rate: the size of a step that guides it, from its config.json, or as far as ZeroCap's 0.3
    goes in the 24 layers of its GPT-2, whose shifts add up.
    """

    at: Located
    causal: Causal = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    vocabulary: int
    start: int | None
    ends: tuple[int, ...]
    length: int
    rate: float
    device: torch.device

    @property
    def end(self) -> int:
        """The id that is written where a text is over."""
        return self.ends[0]

    @property
    def unwritten(self) -> list[int]:
        """Ids that are no text: of special tokens, but for the ends."""
        special = self.tokenizer.get_added_tokens_decoder()
        return sorted({k for k, token in special.items() if token.special and k < self.vocabulary} - {*self.ends})

    def starts_words(self) -> list[bool]:
        """Of each id whether a word begins with it; of all where the vocabulary does not mark that, and of the ends."""
        tokens = [self.tokenizer.id_to_token(k) or "" for k in range(self.vocabulary)]
        found = [token.startswith(WORD) for token in tokens]
        return [own or k in self.ends for k, own in enumerate(found)] if any(found) else [True] * len(found)

    def log_likelihood(self, rows: Sequence[Sequence[int]], begun: int) -> list[float]:
        """Of each row of ids that of all tokens after the first `begun`."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.end] * (longest - len(row))] for row in rows], device=self.device)
        with torch.inference_mode():
            own = self.causal(ids[:, :-1], None)[0].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        return [float(values[begun - 1 : len(row) - 1].sum()) for values, row in zip(own, rows, strict=True)]

    def encode(self, text: str) -> list[int]:
        """The beginning of a text → ids, the start among them and no end."""
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids if self.start is None else [self.start, *ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids → what they say, without what is no text."""
        return " ".join(self.tokenizer.decode([k for k in ids if k not in (self.start, *self.ends)]).split())


def vocabulary_digest(tokenizer: Tokenizer) -> str:
    """The same for tokenizers that write every text in the same ids, whatever padding they were last used with."""
    about = json.loads(tokenizer.to_str())
    own = {name: about.get(name) for name in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
    return sha256(json.dumps(own, sort_keys=True).encode())


def load_language_model(name: str | None, where: Placed) -> LanguageModel:
    """The language model of a name: None is the starter; a folder, or hf-hub: id. Raises ModelError, NetworkError."""
    at = locate(name, "caption", "lm")
    try:
        config = json.loads((at.folder / "config.json").read_text(encoding="utf8"))
        kind = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{at.name} is no language model: it has no config.json that says what it is",
            hint="mmx train-lm makes one; any causal model of the transformers library will do",
        ) from None
    ours = kind == "gpt2" and all(config.get(name, value) == value for name, value in WRITTEN.items())
    try:
        return _gpt2(at, config, where) if ours else _any(at, where)
    except Exception as error:  # the tokenizers library has no class of its own
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{at.name}: the language model can't be loaded: {said}") from None


def _gpt2(at: Located, config: dict[str, Any], where: Placed) -> LanguageModel:
    with torch.random.fork_rng([]):  # not on the meta device: initial weights there import torch's compiler
        net = TiedLanguageModel(**{ours: config[theirs] for ours, theirs in SIZES.items()})
    weights = {f"transformer.{name.removeprefix('transformer.')}": value for name, value in _weights(at.folder).items()}
    net.load_state_dict({name: weights[name].float() for name in net.state_dict()}, assign=True)
    freeze(net).to(where.device, where.dtype)

    def causal(ids: Tensor, past: Cache | None) -> tuple[Tensor, Cache]:
        logits, seen = net(ids, past)
        return logits.float(), seen

    tokenizer = Tokenizer.from_file(str(at.folder / "tokenizer.json"))
    return LanguageModel(
        at,
        causal,
        plain(tokenizer),
        net.sizes["vocab_size"],
        start=config.get("bos_token_id"),
        ends=ends_of(config.get("eos_token_id"), at),
        length=net.sizes["n_positions"],
        rate=config.get(RATE_FIELD, RATE * LAYERS / net.sizes["n_layer"]),
        device=torch.device(where.device),
    )


def _weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, however many files they are in."""
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def _any(at: Located, where: Placed) -> LanguageModel:
    """Whatever the library's AutoModelForCausalLM reads."""
    quiet_libraries("transformers")
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

    options = {"local_files_only": True, "use_safetensors": True, "dtype": where.dtype}
    net = freeze(AutoModelForCausalLM.from_pretrained(at.folder, **options)).to(where.device)
    fast = AutoTokenizer.from_pretrained(at.folder, local_files_only=True)
    config = net.config.get_text_config()

    def causal(ids: Tensor, past: Cache | None) -> tuple[Tensor, Cache]:
        cache = DynamicCache(past) if past else DynamicCache()
        given = net(input_ids=ids, past_key_values=cache, use_cache=True)
        seen = [(layer.keys, layer.values) for layer in given.past_key_values.layers]
        return given.logits.float(), seen

    return LanguageModel(
        at,
        causal,
        plain(fast.backend_tokenizer),
        config.vocab_size,
        start=config.bos_token_id if fast.bos_token_id is None else fast.bos_token_id,
        ends=ends_of(config.eos_token_id if fast.eos_token_id is None else fast.eos_token_id, at),
        length=getattr(config, "max_position_embeddings", 1024),
        rate=getattr(config, RATE_FIELD, RATE * LAYERS / config.num_hidden_layers),
        device=torch.device(where.device),
    )


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that neither cuts nor pads."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def ends_of(ids: int | list[int] | None, at: Located) -> tuple[int, ...]:
    """The ids that end a text. Raises ModelError where there is none."""
    if ids is None:
        raise ModelError(f"{at.name}: no token of it ends a text", hint="give a model that has an end token")
    return tuple(ids) if isinstance(ids, list) else (ids,)


def save_language_model(net: TiedLanguageModel, reader: TextReader, folder: Path) -> None:
    """Write it as the library's GPT2LMHeadModel, float16, with its tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    quiet_libraries("transformers")
    special = {"bos_token_id": START, "eos_token_id": END, "pad_token_id": PAD}
    ids = {name: reader.tokenizer.token_to_id(token) for name, token in special.items()}
    theirs = empty(lambda: GPT2LMHeadModel(GPT2Config(**net.sizes, **ids, **{RATE_FIELD: TUNED_RATE})))
    weights = net.half().state_dict()
    theirs.load_state_dict(weights | {"lm_head.weight": weights["transformer.wte.weight"]}, assign=True)
    theirs.tie_weights()
    theirs.save_pretrained(folder)
    reader.save(folder)
