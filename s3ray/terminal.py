"""Where people read what a command says."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from s3ray.errors import printable


class Terminal(Console):
    """A console for names that strangers chose: brackets are no markup, control characters are shown, not sent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, keep="\n\t"), **options)
