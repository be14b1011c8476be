"""Answers in words: points of a space, and captions of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from mmx.errors import InputError
from mmx.guided.asked import opening
from mmx.guided.caption import Guidance
from mmx.guided.captioner import Captioner
from mmx.guided.gibbs import SWEEPS
from mmx.recipes.asking import Captioning
from mmx.spaces.answers import Consulted, Note, floats, tensor
from mmx.spaces.parts import Cuts
from mmx.spaces.question import Answer, Question


def point(consulted: Consulted, question: Question, note: Note) -> Iterator[Answer]:
    """A sum → in a blob the unit vector (D,) that it is."""
    own = captioner(consulted, question.options)
    yield Answer(blobs=[floats(own.compass.query(question.terms, cuts=Cuts(question.options.every)))])


def caption(consulted: Consulted, question: Question, note: Note) -> Iterator[Answer]:
    """Points (N, D), a blob each, or the one that a sum is → of each the captions, written side by side; of none, what
    guides them. Raises InputError for points of another width."""
    own, options = captioner(consulted, question.options), question.options
    prefix = options.prefix
    if question.terms:
        (found,) = point(consulted, question, note)
        question = replace(question, blobs=tuple(found.blobs))
        prefix = opening(question.terms) if prefix is None else prefix
    if not question.blobs:
        if prefix is not None:
            own.begin(prefix)
        yield Answer([{name: getattr(own.guidance, name) for name in ("steps", "candidates", "beam")}])
        return
    points = [tensor(blob) for blob in question.blobs]
    if any(len(each) != consulted.space.dim for each in points):
        raise InputError("these are no points of this space")
    found = own.captions(torch.stack(points), prefix or "", options.num, seed=options.seed)
    yield Answer([{"captions": [vars(caption) for caption in captions]} for captions in found])


def guidance_of(options: Captioning) -> Guidance:
    """How a space guides what is written."""
    steps = options.steps if options.steps is not None else SWEEPS if options.fast else Guidance().steps
    return Guidance(steps=steps, candidates=options.candidates, beam=max(options.beam, options.num))


def captioner(consulted: Consulted, options: Captioning) -> Captioner:
    """What writes, as the options want it; the one of the last question where they want the same."""
    assert consulted.lm is not None
    key = (guidance_of(options), options.fast)
    if consulted.captioner is None or consulted.captioner[0] != key:
        consulted.captioner = key, Captioner(consulted.space, consulted.lm, key[0], fast=options.fast)
    return consulted.captioner[1]
