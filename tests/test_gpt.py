"""The unit writer's network and search are the transformers library's, to the last byte."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmx.nets.gpt import LanguageModel
from mmx.nets.writer import LEAST, MAX_UNITS, REPEATED, Sampling, UnitWriter, _Gumbel

UNITS, PATCHES, WIDTH, LAYERS, HEADS = 12, 4, 16, 3, 2
LENGTH = PATCHES + MAX_UNITS + 2


def theirs(dropout: float = 0.0) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=UNITS + 3, n_positions=LENGTH, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, resid_pdrop=dropout,
        embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=UNITS + 1, eos_token_id=UNITS + 2, pad_token_id=UNITS,
        tie_word_embeddings=False,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def ours(dropout: float = 0.0) -> LanguageModel:
    return LanguageModel(UNITS + 3, LENGTH, WIDTH, LAYERS, heads=HEADS, dropout=dropout)


def test_a_fresh_one_has_the_librarys_weights() -> None:
    torch.manual_seed(3)
    wanted = theirs().state_dict()
    after = torch.rand(1)
    torch.manual_seed(3)
    got = ours().state_dict()
    assert wanted.keys() == got.keys() and all(torch.equal(value, got[name]) for name, value in wanted.items())
    assert torch.equal(after, torch.rand(1))  # and takes as many random numbers: what is made next is the same, too


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_hidden_states_and_gradients_are_the_librarys(dropout: float) -> None:
    library, own = theirs(dropout), ours(dropout)
    own.load_state_dict(library.state_dict())
    embedded = torch.randn(3, 9, WIDTH, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    wanted = library.train().transformer(inputs_embeds=embedded).last_hidden_state
    torch.manual_seed(1)
    got = own.train().hidden(embedded)
    assert torch.equal(wanted, got)
    wanted.square().sum().backward()
    got.square().sum().backward()
    grads = {name: parameter.grad for name, parameter in library.named_parameters() if parameter.grad is not None}
    for name, value in grads.items():  # with dropout they part by the last bit
        torch.testing.assert_close(own.get_parameter(name).grad, value, rtol=1e-5, atol=1e-8)
    assert dropout or all(torch.equal(own.get_parameter(name).grad, value) for name, value in grads.items())


def by_library(writer: UnitWriter, views: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """As the writer's own search, by `generate`."""
    from transformers import LogitsProcessorList

    library = theirs().eval()
    library.load_state_dict(writer.language.state_dict())
    draws = [_Gumbel(sampling.temperature, sampling.top_p, generator)] if sampling.temperature > 0 else []
    prefix = writer.prefix(views)[torch.arange(sampling.candidates) % len(views)]
    return library.generate(
        inputs_embeds=prefix,
        attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long),
        max_new_tokens=MAX_UNITS,
        min_new_tokens=LEAST,
        num_beams=sampling.beam,
        do_sample=False,
        no_repeat_ngram_size=REPEATED,
        length_penalty=0.0,
        logits_processor=LogitsProcessorList(draws),
        suppress_tokens=[writer.pad, writer.begin],
    )


HOW = {
    "greedy": Sampling(),
    "drawn": Sampling(1, 1.0, 0.95, 8),
    "nearly greedy": Sampling(1, 0.1, 0.5, 3),
    "beam": Sampling(3),
    "beam of draws": Sampling(2, 0.7),
}


@pytest.mark.parametrize("ends", [0.0, 4.0, -50.0])
@pytest.mark.parametrize("how", HOW)
@torch.no_grad()
def test_what_is_written_is_what_the_library_generates(how: str, ends: float) -> None:
    """ends: what is added to the end's score, so that rows end early, at different lengths, or never."""
    torch.manual_seed(0)
    writer = UnitWriter(UNITS, PATCHES, 6, width=WIDTH, depth=LAYERS, heads=HEADS).eval()
    writer.language.transformer.ln_f.bias.fill_(1.0)
    writer.language.lm_head.weight.mul_(10)
    writer.language.lm_head.weight[writer.end] += ends / WIDTH
    views = torch.randn(2, PATCHES, 6)
    wanted = by_library(writer, views, HOW[how], torch.Generator().manual_seed(5))
    got = writer._generate(views, HOW[how], torch.Generator().manual_seed(5))
    assert torch.equal(wanted, got)
    if ends < 0:
        assert got.shape[1] == MAX_UNITS
