"""A local page on which every translation can be tried, with a microphone or a file. Needs gradio, and no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmx.errors import MmxError
from mmx.media.given import Given, Job
from mmx.models.store import assets
from mmx.options import Settings
from mmx.serving.demo_tabs import LOOK, edit_tab, errors_shown, picture_input, search_tab
from mmx.tasks import TASKS, find
from mmx.translate.job import run
from mmx.translate.load import load

if TYPE_CHECKING:  # an extra brings it, and it takes seconds to import
    import gradio as gr

TITLES = {
    "sound2img": "Sound → picture",
    "voice2face": "Voice → face",
    "img2speech": "Picture → speech",
    "text2img": "Text → picture",
}
FONTS = ["system-ui", "sans-serif"]  # the usual theme would fetch its fonts
ABOUT = "Everything is computed on this machine. All that this page makes is synthetic, and its files say so."
TRIES = {  # what can be tried without anything at hand
    "sound2img": ("bark", "meow", "sea", "fire", "crickets", "siren"),
    "voice2face": ("voices/low", "voices/high"),
    "text2img": ("a photo of a seashore", "a photo of a cat", "two people looking at a fire"),
}


def make_page(folder: Path) -> gr.Blocks:
    """The page. folder: where results are written, with what made them inside, for as long as it is shown."""
    import gradio as gr

    with gr.Blocks(title="mmx", analytics_enabled=False) as page:
        gr.Markdown(f"# mmx\n{ABOUT}")
        for command, title in TITLES.items():
            with gr.Tab(title):
                _tab(command, folder)
        with gr.Tab("Edit"):
            edit_tab(folder)
        with gr.Tab("Search"):
            search_tab(folder)
    return page


def _tab(command: str, folder: Path) -> None:
    """Input, seed and how many on the left, results and what was heard on the right."""
    import gradio as gr

    speaks = TASKS[command].target.modality == "sound"
    notice = find(TASKS[command].translator).notice  # what a face is not, say
    if notice:
        gr.Markdown(notice)
    with gr.Row():
        with gr.Column():
            given = _input(TASKS[command].source.modality)
            if command in TRIES:
                gr.Examples(tries(command), given, label="or try", elem_id=f"try-{command}")
            seed = gr.Number(0, label="seed", precision=0, minimum=0)
            count = gr.Slider(1, 9, 1, step=1, label="results", visible=not speaks)
            button = gr.Button("Translate", variant="primary", elem_id=f"go-{command}")
        with gr.Column():
            found = _spoken() if speaks else _gallery()
            hears = TASKS[command].source.modality == "sound"
            heard = gr.Label(label="heard", elem_id=f"heard-{command}", visible=hears)
    button.click(translation(command, folder), [given, seed, count], [found, heard], api_name=command)


def _input(modality: str) -> Any:
    import gradio as gr

    if modality == "sound":
        sources = ["upload", "microphone"]
        return gr.Audio(sources=sources, type="filepath", label="sound", buttons=["download"])
    if modality == "image":
        return picture_input()
    return gr.Textbox("a photo of a seashore", label="text")


def _spoken() -> Any:
    import gradio as gr

    return gr.Audio(label="speech", type="filepath", buttons=["download"])


def _gallery() -> Any:
    """Results in three columns, however few: wider, a small picture would be enlarged until it is cut."""
    import gradio as gr

    how = {"columns": 3, "fit_columns": False, "object_fit": "contain", "height": "auto"}
    return gr.Gallery(label="pictures", show_label=False, buttons=[*LOOK, "download_all"], **how)


def tries(command: str) -> list[str]:
    """What a tab offers to try: texts, or the paths of samples."""
    if TASKS[command].source.modality == "text":
        return list(TRIES[command])
    return [str(assets() / "samples" / f"{name}.wav") for name in TRIES[command]]


def translation(command: str, folder: Path) -> Callable[[str | None, float, float], tuple[Any, dict[str, float]]]:
    """What a tab's button does: a file's path or a text, a seed and how many → paths of results, and what was heard.

    Raises gr.Error, which the page shows.
    """

    def translate(given: str | None, seed: float, count: float) -> tuple[Any, dict[str, float]]:
        with errors_shown():
            done = run(load(command), _job(command, given, int(seed), int(count)))
        suffix = ".wav" if TASKS[command].target.modality == "sound" else ".png"
        paths = [folder / f"{command}-{int(seed)}-{number}{suffix}" for number in range(len(done.artifacts))]
        for path, artifact in zip(paths, done.artifacts, strict=True):
            path.write_bytes(artifact.data)
        shown = [str(path) for path in paths]
        return (shown[0] if suffix == ".wav" else shown), dict(done.heard[0])

    return translate


def _job(command: str, given: str | None, seed: int, count: int) -> Job:
    if not given:
        raise MmxError("there is no input")
    if TASKS[command].source.modality == "text":
        one = Given(given, given.encode(), is_text=True)
    else:
        one = Given(Path(given).name, Path(given).read_bytes())
    return Job((one,), Settings(seed=seed), tuple(range(count)), command=command)


def show_page(page: gr.Blocks, folder: Path, port: int) -> str:
    """Serve the page on this machine's own address, which is returned, until `page.close()`. Raises OSError."""
    import gradio as gr

    _, address, _ = page.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        quiet=True,
        ssr_mode=False,
        show_error=True,  # of its own, too
        footer_links=[],
        max_file_size="64mb",
        theme=gr.themes.Base(font=FONTS, font_mono=["monospace"]),
        prevent_thread_lock=True,
        allowed_paths=[str(folder), str(assets() / "samples")],
    )
    return address
