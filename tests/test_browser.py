"""The browser's side: how its modules become one, and what they do without a page (tests/browser has the real one)."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from diffexplore.looks.views import VIEWS
from diffexplore.widgets import browser, feed
from diffexplore.widgets.browser import CSS, ESM, PAGE, joined, modules, styles

FOLDER = Path(browser.__file__).parent
ROOT = Path(__file__).parents[1]


def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node here")
    return found


def write(folder: Path, **texts: str) -> Path:
    """Modules by name; returns the path of the last."""
    for name, text in texts.items():
        path = folder / f"{name}.js"
        path.write_text(text, "utf-8")
    return path


def run(text: str, folder: Path) -> str:
    """What a module prints."""
    (folder / "run.mjs").write_text(text, "utf-8")
    found = subprocess.run([node(), folder / "run.mjs"], capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr
    return found.stdout


# --- joining ---


def test_modules_become_one_that_does_what_they_do(tmp_path: Path) -> None:
    entry = write(
        tmp_path,
        a="export const two = 2;\nconst own = 1;\nexport const three = two + own;\n",
        b='import { three } from "./a.js";\n\nexport function twice(x = three) {\n\treturn 2 * x;\n}\n',
        c='import { two } from "./a.js";\nimport { twice } from "./b.js";\n\nexport default () => twice() + two;\n',
    )
    text = joined(entry)
    assert run(f"{text}\n", tmp_path) == ""
    assert run(text.replace("export default", "const made =") + "console.log(made());", tmp_path) == "8\n"
    assert [path.stem for path in modules(entry)] == ["a", "b", "c"]


def test_comments_stay_at_home_and_code_beside_them_does_not(tmp_path: Path) -> None:
    entry = write(
        tmp_path,
        a='/**\n * Two.\n * @type {number}\n */\nexport const two = "2 // 3"; // still two\n\t// more\n',
        b='import { two } from "./a.js";\n/** @type {number} */ let x = two;\n/** Once. */\n'
        "export default () => {\n\treturn /** @type {any} */ (x); // its own\n};\n",
    )
    assert joined(entry) == 'const two = "2 // 3";\n\nlet x = two;\nexport default () => {\nreturn (x);\n};\n'


def test_what_follows_brings_only_what_is_new(tmp_path: Path) -> None:
    first = write(
        tmp_path, a="export const one = 1;\n", b='import { one } from "./a.js";\nexport const two = 2 * one;\n'
    )
    page = write(tmp_path, page='import { two } from "./b.js";\nconsole.log(two);\n')
    assert joined(page, after=first).strip() == "console.log(two);"
    assert run(joined(first) + joined(page, after=first), tmp_path) == "2\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("const one = 2;", "a.js and b.js both declare one; they share a scope"),
        ('import { two } from "./a.js";', "b.js imports two, which a.js does not export"),
        ('import { own } from "./a.js";', "b.js imports own, which a.js does not export"),
        ('import { x } from "./none.js";', "b.js imports none.js, which is not in"),
        ('import { x } from "lodash";', "cannot be joined; write import { a, b } from"),
        ('import { one as x } from "./a.js";', "b.js imports one as x, which a.js does not export"),
        ('import * as a from "./a.js";', "cannot be joined; write import"),
        ('export { one } from "./a.js";', "cannot be joined; write export before what it declares"),
        ("const { x, y } = {};", "cannot be joined; declare one name in a line"),
        ('import "./b.js";', "b.js imports itself, by way of b.js"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    entry = write(tmp_path, a="export const one = 1;\nconst own = 1;\n", b=f'import {{ one }} from "./a.js";\n{text}\n')
    with pytest.raises(ValueError, match=re.escape(sentence)):
        joined(entry)


def test_a_style_sheet_lies_beside_its_module(tmp_path: Path) -> None:
    entry = write(tmp_path, a="export const one = 1;\n", b='import { one } from "./a.js";\n')
    (tmp_path / "a.css").write_text("a {}\n")
    (tmp_path / "b.css").write_text("b {}\n")
    assert styles(entry) == "b {}\n\na {}\n"


def test_every_file_of_the_room_is_in_the_page() -> None:
    found = {path for entry in ("sheetpage.js", "page.js", "recipe.js", "tally.js") for path in modules(FOLDER / entry)}
    assert found == {*FOLDER.rglob("*.js")}
    assert all(sheet.with_suffix(".js") in found for sheet in FOLDER.rglob("*.css"))


# --- what is shipped ---


def test_the_module_and_its_style_are_small_and_bring_nothing_from_elsewhere() -> None:
    script = ESM + PAGE
    assert len(script.encode()) + len(CSS.encode()) < 200_000
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "http:",
        "https:",
        "import ",
        "</script",
    ):
        assert word not in script
    assert "url(" not in CSS
    assert "@import" not in CSS
    assert CSS.count("{") == CSS.count("}")


def test_what_stands_around_a_viewer_has_names_of_its_own() -> None:
    """All sheets hold for one page: two that use one name for two things have one of them look like the other."""
    around = {"app", "chip", "column", "columns", "explorer", "face", "last", "picture", "pop", "prompt"}
    around |= {"row", "run", "shared-text", "stop", "viewer"}  # what one sheet knows of another's
    around |= {"icon", "text"}  # of elements of different names, with nothing to see
    texts = [CSS, *((FOLDER / f"{one}.css").read_text() for one in ("controls", "picture", "recipe", "sheet", "tally"))]
    sheets = [{*re.findall(r"\.dx-([\w-]+)", text)} for text in texts]
    for one, other in itertools.combinations(sheets, 2):
        assert one & other <= around


def test_anywidget_finds_its_module(tmp_path: Path) -> None:
    (tmp_path / "widget.mjs").write_text(ESM, "utf-8")
    text = 'const { default: widget } = await import("./widget.mjs");\nconsole.log(Object.keys(widget()).join());'
    assert run(text, tmp_path) == "initialize,render\n"


def test_both_sides_use_the_same_words(tmp_path: Path) -> None:
    names = ("PIECE", "STATE", "HELLO", "ACK", "AGAIN", "LOOK", "PING", "HERE", "WHAT_IF")
    text = f"""
import * as wire from "{(FOLDER / "wire.js").as_uri()}";
import {{ WORDS }} from "{(FOLDER / "films.js").as_uri()}";
console.log(JSON.stringify([{json.dumps(names)}.map((name) => wire[name]), Object.keys(WORDS)]));
"""
    words, kinds = json.loads(run(text, tmp_path))
    assert words == [getattr(feed, name) for name in names]
    assert kinds == list(VIEWS)


def test_the_modules_agree_with_their_types() -> None:
    folder = Path(os.environ.get("NODE_MODULES", ROOT / "build" / "node_modules"))
    tsc = folder / "typescript" / "bin" / "tsc"
    if not tsc.exists():
        pytest.skip(f"there is no TypeScript in {folder}: npm install --prefix build typescript")
    project = ROOT / "tests" / "js" / "tsconfig.json"
    found = subprocess.run([node(), tsc, "--project", project], capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout[-4000:]


def test_the_pure_functions_of_the_modules() -> None:
    found = subprocess.run([node(), "--test", "tests/js"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stdout[-4000:]
