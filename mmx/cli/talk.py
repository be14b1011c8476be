"""What the commands say: results and errors as JSON lines on stdout, or as text on stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from mmx.errors import MmxError
from mmx.media.files import Target
from mmx.media.names import printable

if TYPE_CHECKING:
    from mmx.media.files import Source
    from mmx.media.given import Done, Job
    from mmx.options import Saying


def report(error: MmxError, *, as_json: bool, **about: object) -> None:
    """An error as the user sees it: a line and a hint on stderr, or a JSON object on stdout that holds `about`, too."""
    if as_json:
        print(json.dumps({"schema": "mmx.error/1"} | about | error.as_dict()), flush=True)
        return
    print(f"mmx: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"     hint: {printable(error.hint)}", file=sys.stderr)


class Speaker:
    """What commands say: notes on stderr, objects or lines on stdout."""

    def __init__(self, saying: Saying) -> None:
        self.saying = saying

    def note(self, text: str) -> None:
        """A line for the user, who may not want it."""
        if not self.saying.quiet:
            print(printable(text), file=sys.stderr, flush=True)

    def result(self, about: dict[str, Any], line: str = "") -> None:
        """A result: a JSON object, or a line where there is one."""
        if self.saying.as_json:
            print(json.dumps(about), flush=True)
        elif line:
            print(printable(line), flush=True)


class Talk(Speaker):
    """What a translating command says. verb: what became of an input, such as "heard"."""

    def __init__(self, saying: Saying, verb: str) -> None:
        super().__init__(saying)
        self.verb = verb

    def done(self, job: Job, done: Done, targets: list[Target]) -> None:
        """What was heard in each input, where the results are, and how long it took."""
        for text in done.notes:
            self.note(text)
        sources = [given.name for given in job.of("source")]
        names = [", ".join(sources)] if job.settings.average else sources
        for name, heard in zip(names, done.heard, strict=True) if any(done.heard) else ():
            self.note(f"{name}: {self.verb}: {', '.join(f'{label} {share:.2f}' for label, share in heard)}")
        stages = ", ".join(f"{stage} {took:.2f} s" for stage, took in done.seconds.items())
        self.note(f"{', '.join(target.name for target in targets)}: {stages}")
        self.result(
            {
                "schema": "mmx.result/1",
                "command": job.command,
                "inputs": sources,
                "outputs": ["-" if target == Target(None) else target.name for target in targets],
                "seed": job.settings.seed,
                "heard": [[{"label": label, "share": share} for label, share in heard] for heard in done.heard],
                "seconds": done.seconds,
                "notes": done.notes,
            }
        )

    def failed(self, sources: list[Source], error: MmxError) -> None:
        """One input failed, and the rest goes on."""
        report(error, as_json=self.saying.as_json, inputs=[source.name for source in sources])
