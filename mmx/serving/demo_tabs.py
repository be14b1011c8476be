"""The tabs of the local page that take more than one input: edits, and searches in files that are given to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmx.errors import InputError, MmxError
from mmx.faults import unexpected
from mmx.media.face_texts import said
from mmx.media.given import Given, Job
from mmx.media.image import png_bytes
from mmx.options import Settings
from mmx.spaces.index import Index
from mmx.spaces.indexing import update
from mmx.spaces.load import load_space
from mmx.spaces.query import parse_query
from mmx.spaces.search import find
from mmx.spaces.sheet import draw_hits
from mmx.translate.job import run
from mmx.translate.load import load

IMAGES = "starter/image"  # edits what no text about a face is about
HITS = 10
LOOK = ["download", "fullscreen"]  # buttons of pictures: one that shares would hand them to another machine


@contextmanager
def errors_shown() -> Iterator[None]:
    """Inside, whatever is raised is a gr.Error, which the page shows."""
    import gradio as gr

    try:
        yield
    except MmxError as error:
        raise gr.Error(_told(error), print_exception=False) from None
    except Exception as error:
        raise gr.Error(unexpected(error).message, print_exception=False) from None


def _told(error: MmxError) -> str:
    """An error with its hint, but for one that is for who types commands."""
    typed = not error.hint or "--" in error.hint or "mmx " in error.hint
    return error.message if typed else f"{error.message}; {error.hint}"


def picture_input() -> Any:
    """Hands over the very file that was given, so that it is ours to say what is wrong with it."""
    import gradio as gr

    found = gr.Image(type="filepath", label="picture", buttons=LOOK)
    usual = found.preprocess  # which opens pictures, and writes those of other modes than RGB anew
    found.preprocess = lambda given: given.path if given and given.path else usual(given)
    return found


def edit_tab(folder: Path) -> None:
    """A picture and a text on the left, the edited picture on the right."""
    import gradio as gr

    gr.Markdown("Toward a text: of a face (an old woman, a man), or of anything that the starter image decoder draws.")
    with gr.Row():
        with gr.Column():
            given = picture_input()
            text = gr.Textbox("an old woman", label="text")
            seed = gr.Number(0, label="seed", precision=0, minimum=0)
            button = gr.Button("Edit", variant="primary", elem_id="go-edit")
        with gr.Column():
            found = gr.Image(type="filepath", label="edited", format="png", buttons=LOOK)
    button.click(edit(folder), [given, text, seed], found, api_name="edit")


def edit(folder: Path) -> Callable[[str | None, str, float], str]:
    """What the button does: a picture's path, a text and a seed → the path of the result; how far it is shows on the
    page. Raises gr.Error."""
    import gradio as gr

    def edited(given: str | None, text: str, seed: float, bar: Any = gr.Progress()) -> str:
        with errors_shown():
            if not given or not text.strip():
                raise InputError("there is no picture, or no text")
            data = Path(given).read_bytes()
            inputs = (Given(Path(given).name, data), Given(text, text.encode(), "plus", is_text=True))
            editor = load("edit", decoder=None if _about_a_face(text) else IMAGES)
            editor.watch = lambda step, total, losses: bar((step, total))
            try:
                done = run(editor, Job(inputs, Settings(seed=int(seed)), command="edit"))
            finally:
                editor.watch = None
        path = folder / f"edit-{int(seed)}.png"
        path.write_bytes(done.artifacts[0].data)
        return str(path)

    return edited


def _about_a_face(text: str) -> bool:
    try:
        return bool(said(text))
    except InputError:
        return False


def search_tab(folder: Path) -> None:
    """Files and a query on the left, the hits as a sheet on the right."""
    import gradio as gr

    gr.Markdown("Pictures, sounds, texts and videos by a text, in the space that the starter models share.")
    with gr.Row():
        with gr.Column():
            files = gr.File(file_count="multiple", type="filepath", label="files")
            query = gr.Textbox("a photo of a seashore", label="query")
            button = gr.Button("Search", variant="primary", elem_id="go-search")
        with gr.Column():
            # a label would lie over the query, which the sheet begins with
            found = gr.Image(type="filepath", label="hits", show_label=False, format="png", buttons=LOOK)
    button.click(search(folder), [files, query], found, api_name="search")


def search(folder: Path) -> Callable[[list[str] | None, str], str]:
    """What the button does: paths of files and a query → the path of a sheet of hits. Files that were given before need
    not be looked at again; the page says which can't be read. Raises gr.Error."""
    import gradio as gr

    def searched(files: list[str] | None, query: str) -> str:
        with errors_shown():
            if not files or not query.strip():
                raise InputError("there are no files, or no query")
            terms = parse_query(query)
            if any(term.kind != "text" for term in terms):
                raise InputError(f"{query}: here a query is a text, or a sum of texts in quotes")
            space, wanted = load_space(), {str(Path(file).absolute()) for file in files}
            done = update(folder / "files.idx", space, [Path(file) for file in files])
            for path, error in done.unreadable:
                gr.Warning(_told(error).replace(path, Path(path).name))
            hits = find(lambda: Index.open(folder / "files.idx"), space, terms, top=10_000)
            own = [hit for hit in hits if hit.row["path"] in wanted]
            if not own:
                raise InputError("nothing can be searched in these files")
            path = folder / "search.png"
            path.write_bytes(png_bytes(draw_hits(own[:HITS], query)))
        return str(path)

    return searched
