"""A film as one page of its own, which needs no kernel, no network and no other file.

:func:`to_html` writes it; :func:`page` is what the Export button of the browser's side fills by itself. Nothing runs in
it but the script whose hash stands in its head, and nothing is loaded from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, Final

from diffexplore.looks.views import VIEWS
from diffexplore.record.file import written
from diffexplore.values import a_path
from diffexplore.widgets.browser import CSS, ESM, PAGE
from diffexplore.widgets.film import films_of, pack
from diffexplore.words import near, shown

__all__ = ["filled", "page", "to_html"]

# The places marked @...@ are filled here, and by the Export button in browser/export.js. The hashes are of script
# and style.
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src blob: data:; style-src '@style_hash@'; \
script-src '@script_hash@'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="diffexplore">
<title>@title@</title>
<style>@style@</style>
</head>
<body>
<main id="dx"></main>
<noscript>This page needs JavaScript to show its pictures. It loads nothing from elsewhere.</noscript>
<script type="application/json" id="dx-data">@data@</script>
<script type="module">@script@</script>
</body>
</html>
"""

_PAGE_STYLE: Final = """
html { color-scheme: light dark; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: Canvas; color: CanvasText; font-family: system-ui,
sans-serif; }
"""


def to_html(source: Any, path: str | PathLike[str], *, view: str = "x0") -> Path:
    """Write one self-contained page that scrubs with no kernel, no network and no other file.

    Args:
        source: What `films_of` takes: a trace, a saved one, or several on one timeline.
        path: Where to write; an existing file is replaced once the new one is whole. ``~`` is the home folder.
        view: The view it opens with.

    Returns:
        The file written.

    Raises:
        ValueError: An unknown view, or a run without steps.
        TypeError: `source` holds no runs.
        OSError: The file cannot be written; what was there is still there.
    """
    if view not in VIEWS:
        raise ValueError(f"view must be one of {', '.join(VIEWS)}; got {shown(view)}{near(view, VIEWS)}")
    films = films_of(source)
    document, frames = pack(films)
    traits = {"_film": document, "view": view, "step": -1, "_notes": [], "_error": ""}
    prompt = next((str(film.about["prompt"]) for film in films if film.about.get("prompt")), "")
    filled = _fill(
        page(),
        title=_text(f"{prompt:.80} - diffexplore" if prompt else "diffexplore"),
        style=CSS,
        script=ESM,
        data=_json({"traits": traits, "frames": base64.b64encode(frames).decode()}),
    )
    place = Path(a_path(path)).expanduser()
    with written(place) as file:
        file.write(filled.encode())  # as bytes: the hashes are of "\n" line ends
    return place


def filled(title: str, style: str, script: str, data: Any) -> bytes:
    """A whole page of its own.

    Args:
        title: Any text.
        style, script: Ours.
        data: What the script finds as JSON in the element "dx-data".
    """
    style += _PAGE_STYLE
    values = {"style_hash": _hash(style), "script_hash": _hash(script), "title": _text(title)}
    return _fill(_PAGE, **values, style=style, script=script, data=_json(data)).encode()  # the hashes are of "\n" ends


@cache
def page() -> str:
    """The exported page with @title@, @style@ (`CSS`), @data@ and @script@ (`ESM`) still to be filled in."""
    style, script = CSS + _PAGE_STYLE, ESM + PAGE
    return _fill(
        _PAGE,
        style=f"@style@{_PAGE_STYLE}",
        style_hash=_hash(style),
        script=f"@script@{PAGE}",
        script_hash=_hash(script),
    )


def _fill(text: str, **values: str) -> str:
    """Fill marked places, in one pass: a mark within a value, such as a prompt, is left alone."""
    return re.sub("@(" + "|".join(values) + ")@", lambda found: values[found[1]], text)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> str:
    """JSON that no HTML parser can be led out of: markup, and the two line ends that JavaScript once refused, as
    escapes."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _text(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
