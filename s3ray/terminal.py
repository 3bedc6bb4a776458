"""Where people read what a command says."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from s3ray.errors import printable


class Terminal(Console):
    """A console for names that strangers chose: brackets are no markup, control characters are shown, not sent."""

    def __init__(self, **options: Any) -> None:
        # In a notebook rich would need ipywidgets for what moves; lines are plain there, as in a file.
        plain = {"force_jupyter": False, "force_terminal": False} if Console().is_jupyter else {}
        super().__init__(markup=False, **{**plain, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, keep="\n\t"), **options)
