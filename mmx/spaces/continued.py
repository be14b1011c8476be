"""Texts by their token ids, one token longer than what is known of them: a starter teacher reads the beginning once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from mmx.decoders.teacher import Teacher
from mmx.device import threads_for


class Continued:
    """A starter teacher's text tower and its vocabulary.

    end: the id after which a text is over, the highest of all. length: tokens of the longest text, its end among them.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._net, self._reader = teacher.net, teacher.reader
        self.end, self.length = len(teacher.reader) - 1, teacher.reader.length

    @property
    def tokenizer(self) -> Tokenizer:
        return self._reader.tokenizer

    @property
    def device(self) -> torch.device:
        return self._net.logit_scale.device

    @torch.inference_mode()
    def __call__(self, beginnings: Tensor, ids: Tensor) -> Tensor:
        """Beginnings (U, T) with their start and without an end, and tokens (U, M) that may follow on each → unit
        vectors (U, M, D) of the texts that then are over, where they were computed. The end may follow, too.

        T at most `length` - 2.
        """
        tower = self._net.text_encoder
        endings = torch.stack((ids, torch.full_like(ids, self.end)), -1)
        with threads_for(tower):
            return F.normalize(tower.ended(tower.begun(beginnings), endings).float(), dim=-1)
