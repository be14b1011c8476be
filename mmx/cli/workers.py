"""Files embedded on a cluster, as `mmx index` takes them in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from mmx.cli.consult import Consultation
from mmx.errors import DeadlyError, InputError
from mmx.media.files import Source
from mmx.recipes.asking import Cutting
from mmx.serving.wire import error_of
from mmx.spaces.embedding import Embedded, File
from mmx.spaces.query import Term
from mmx.spaces.question import Question, raised

if TYPE_CHECKING:
    from torch import Tensor


class Workers:
    """Chunks of files, one by each worker at a time, in their order."""

    def __init__(self, space: Consultation, cutting: Cutting) -> None:
        self.space, self.cutting = space, cutting

    def embedded(self, chunks: Iterable[Sequence[File]]) -> Iterator[list[Embedded]]:
        """As `mmx.spaces.indexing.embedded` of each chunk. Raises what no file is to blame for."""
        begun: deque[Future[list[Embedded]]] = deque()
        with ThreadPoolExecutor(self.space.width) as pool:
            for chunk in chunks:
                begun.append(pool.submit(self._chunk, chunk))
                if len(begun) == self.space.width:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()

    def means(self) -> Tensor:
        """(M, D): as `known_means`."""
        from mmx.spaces.answers import tensor

        (answer,) = self.space.ask(Question("means", self.cutting))
        return tensor(raised(answer).blobs[0]).view(-1, self.space.facts.dim)

    def _chunk(self, files: Sequence[File]) -> list[Embedded]:
        """Some files, read here and embedded there. What kills every worker is left out, and the others are done
        without it, as if it could not be read: together, or their last bits would be others."""
        found, terms = {file.path: Embedded(file) for file in files}, []
        for file in files:
            try:
                terms.append(Term("file", file.path, data=Source(Path(file.path), Path(file.path)).read()))
            except InputError as error:
                found[file.path].failed = error
        try:
            self._ask(terms, found)
        except DeadlyError:
            alive = [term for term in terms if self._survives(term, found)]
            if len(alive) < len(terms):
                self._ask(alive, found)
        return list(found.values())

    def _survives(self, term: Term, found: dict[str, Embedded]) -> bool:
        try:
            self._ask([term], found)
        except DeadlyError as error:
            found[term.value].failed = error
            return False
        return True

    def _ask(self, terms: list[Term], found: dict[str, Embedded]) -> None:
        if not terms:
            return
        import numpy as np

        (answer,) = self.space.ask(Question("rows", self.cutting, tuple(terms)))
        for about, blob in zip(raised(answer).results, answer.blobs, strict=True):
            own = found[about["path"]]
            own.failed = error_of(about["failed"]) if about["failed"] else None
            own.abouts = about["rows"]
            own.vectors = list(np.frombuffer(blob, np.float16).reshape(-1, self.space.facts.dim))
