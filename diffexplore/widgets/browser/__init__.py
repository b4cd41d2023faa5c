"""The browser's side, from modules to the one module that anywidget takes.

`viewer.js` is its entry; what it imports is found from there. The order of the panels is that of the lines of
`panels/index.js`. A browser gets all of them joined, since anywidget loads text, which cannot import its neighbours,
and joined here, since a user's machine has no node: `import` lines, comments (those behind code where they have no
quotes, which a string would have), the tabs before a line and the word `export` are dropped, so that all names at the
head of a line share one scope. Beside a module may lie a style sheet of its name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = [
    "CONTROLS",
    "CONTROLS_CSS",
    "CSS",
    "ESM",
    "PAGE",
    "PICTURE",
    "PICTURE_CSS",
    "RECIPE",
    "RECIPE_CSS",
    "SHEET",
    "SHEET_CSS",
    "SHEET_PAGE",
    "TALLY",
    "TALLY_CSS",
    "joined",
    "modules",
    "styles",
]

_HERE: Final = Path(__file__).parent
_IMPORT: Final = re.compile(r'import (?:\{ ([\w$, ]+) \} from )?"(\.{1,2}/[^"]+\.js)";')
_EXPORT: Final = re.compile(r"export (?=(?:const|let|async function|function|class) )")
_NAMED: Final = re.compile(r"(export )?(?:const|let|var|async function\*?|function\*?|class) ([\w$]+)")
_DEFAULT: Final = "export default "
_COMMENT: Final = re.compile(r"^[ \t]*(?://.*|/\*\*(?:(?!\*/)[\s\S])*\*/[ \t]*)\n", re.MULTILINE)

_TYPE: Final = re.compile(r"/\*\*(?:(?!\*/).)*\*/ ?|[ \t]+// [^\"'`\n]*$", re.MULTILINE)
_REMARK: Final = re.compile(r"^[ \t]*/\*(?:(?!\*/)[\s\S])*\*/[ \t]*\n", re.MULTILINE)  # in a style sheet
_INDENT: Final = re.compile(r"^\t+", re.MULTILINE)


def modules(entry: Path) -> list[Path]:
    """The module and all it imports, each after those that it imports itself.

    Raises:
        ValueError: One sentence: something is imported that is not there, or in a way that cannot be joined.
    """
    order: list[Path] = []

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        if path in trail:
            raise ValueError(f"{path.name} imports itself, by way of {', '.join(one.name for one in trail)}")
        if path in order:
            return
        for wanted, names in _imports(path):
            if not wanted.is_file():
                raise ValueError(f"{path.name} imports {wanted.name}, which is not in {wanted.parent.name}")
            visit(wanted, (*trail, path))
            for name in names:
                if name not in _names(wanted, exported=True):
                    raise ValueError(f"{path.name} imports {name}, which {wanted.name} does not export")
        order.append(path)

    visit(entry.resolve(), ())
    return order


def joined(entry: Path, after: Path | None = None) -> str:
    """One module's text from `entry` and all it imports.

    Args:
        entry: Only its `export default` stays.
        after: Leave out what joining this one has brought already: the text is to follow it.

    Raises:
        ValueError: One sentence: as `modules`, or two modules have the same name at the head of a line.
    """
    before = modules(after) if after is not None else []
    owners: dict[str, Path] = {}
    parts = []
    for path in [*before, *(one for one in modules(entry) if one not in before)]:
        for name in _names(path):
            if name in owners:
                raise ValueError(f"{owners[name].name} and {path.name} both declare {name}; they share a scope")
            owners[name] = path
        if path not in before:
            parts.append(_text(path, path == entry.resolve()))
    return "\n".join(part for part in parts if part.strip())


def styles(entry: Path) -> str:
    """The style sheets beside `entry` and all it imports: first its own, then theirs in order."""
    order = modules(entry)
    sheets = (path.with_suffix(".css") for path in [order[-1], *order[:-1]])
    texts = (sheet.read_text("utf-8") for sheet in sheets if sheet.is_file())
    return "\n".join(_INDENT.sub("", _REMARK.sub("", text)) for text in texts)


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def _imports(path: Path) -> list[tuple[Path, list[str]]]:
    found = []
    for line in _lines(path):
        if line.startswith("import"):
            match = _IMPORT.fullmatch(line)
            if match is None:
                raise ValueError(f'{path.name}: {line!r} cannot be joined; write import {{ a, b }} from "./file.js";')
            names = [name.strip() for name in (match[1] or "").split(",") if name.strip()]
            found.append(((path.parent / match[2]).resolve(), names))
    return found


def _names(path: Path, exported: bool = False) -> list[str]:
    matches = (_NAMED.match(line) for line in _lines(path))
    return [match[2] for match in matches if match is not None and (match[1] or not exported)]


def _text(path: Path, entry: bool) -> str:
    kept = []
    for line in _lines(path):
        if line.startswith("import") or (line.startswith(_DEFAULT) and not entry):
            continue
        if line.startswith("export") and not line.startswith(_DEFAULT):
            if not _EXPORT.match(line):
                raise ValueError(f"{path.name}: {line!r} cannot be joined; write export before what it declares")
            line = _EXPORT.sub("", line)
        elif re.match(r"(?:const|let|var) [\[{]", line):
            raise ValueError(f"{path.name}: {line!r} cannot be joined; declare one name in a line")
        kept.append(line)
    return _INDENT.sub("", _TYPE.sub("", _COMMENT.sub("", "\n".join(kept) + "\n")))


ESM: Final = joined(_HERE / "viewer.js")
"""The module that anywidget takes; its default export is the widget."""
CSS: Final = styles(_HERE / "viewer.js")
"""Its style."""
PAGE: Final = joined(_HERE / "page.js", after=_HERE / "viewer.js")
"""What follows `ESM` in an exported page, in place of Jupyter."""
CONTROLS: Final = joined(_HERE / "controls.js")
"""The module of the controls: a menu with groups, and what makes those of ipywidgets at home in their rows."""
CONTROLS_CSS: Final = styles(_HERE / "controls.js")
"""Their style."""
PICTURE: Final = joined(_HERE / "picture.js")
"""The module of a field for a picture, with that of the controls."""
PICTURE_CSS: Final = styles(_HERE / "picture.js")
"""Their style."""
RECIPE: Final = joined(_HERE / "recipe.js")
"""The module of a field for a recipe, with that of the field for a picture."""
RECIPE_CSS: Final = styles(_HERE / "recipe.js")
"""Their style."""
TALLY: Final = joined(_HERE / "tally.js")
"""The module of pictures that are counted by hand."""
TALLY_CSS: Final = styles(_HERE / "tally.js")
"""Their style."""
SHEET: Final = joined(_HERE / "sheet.js")
"""The module of a grid's pictures."""
SHEET_CSS: Final = styles(_HERE / "sheet.js")
"""Their style."""
SHEET_PAGE: Final = joined(_HERE / "sheetpage.js", after=_HERE / "viewer.js")
"""What follows `ESM` in the page of a grid."""
