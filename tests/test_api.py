"""The reference made from the docstrings: it builds without a warning, has every public name, and says what counts."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from functools import cached_property
from html import unescape
from pathlib import Path

import pytest

import diffexplore as dx

ROOT = Path(__file__).parents[1]


def options():
    """What the command in CONTRIBUTING.md gives to pdoc."""
    (line,) = re.findall(r"^\.venv/bin/pdoc (.+)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    return line.split()


MODULES = [word for word in options() if word.startswith("diffexplore")]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of pages that the command makes, and what it said about it."""
    folder = tmp_path_factory.mktemp("api")
    *rest, out, _ = options()
    assert out == "-o"
    done = subprocess.run(
        [sys.executable, "-m", "pdoc", *rest, "-o", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout + done.stderr


@pytest.fixture(scope="module")
def entries(built):
    """Module -> its names with their members -> the docstring as the page shows it."""
    folder, _ = built
    return {name: docstrings((folder / f"{name.replace('.', '/')}.html").read_text()) for name in MODULES}


def docstrings(page):
    found = {}
    for part in re.split(r'(?=<(?:section|div) id="[A-Za-z_][\w.]*")', page)[1:]:
        name = re.match(r'<\w+ id="([^"]+)"', part)[1]
        text = re.search(r'<div class="docstring">(.*)', part, re.DOTALL)
        found[name] = unescape(re.sub(r"<[^>]+>", "", text[1])).strip() if text else ""
    return found


def documented():
    """(name, function, the docstrings to read) of everything public in the modules that can be called."""
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing):
                yield f"{module.__name__}.{name}", thing, [thing.__doc__]
            elif inspect.isclass(thing):
                for key, member in vars(thing).items():
                    if isinstance(member, property):
                        member = member.fget
                    elif isinstance(member, cached_property):
                        member = member.func
                    member = inspect.unwrap(getattr(member, "__func__", member))
                    written = inspect.isfunction(member) and member.__code__.co_filename == inspect.getfile(thing)
                    if written and (key == "__init__" or not key.startswith("_")):
                        # What a class is made with is said in the docstring of the class.
                        own = [thing.__doc__] if key == "__init__" else []
                        yield f"{module.__name__}.{name}.{key}", member, [member.__doc__, *own]


CALLABLES = {name: (function, "\n".join(filter(None, docs))) for name, function, docs in documented()}


def raised(function):
    """The exceptions that stand in `raise` statements of a function itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return {call.func.id for call in calls if isinstance(call.func, ast.Name)}


def test_it_builds_without_a_warning(built):
    _, said = built
    assert said.strip() == ""


def test_nothing_is_fetched_by_a_reader(built):
    folder, _ = built
    for page in folder.rglob("*.html"):
        assert not re.search(r'(?:src|<link[^>]+href)="(?:https?:)?//', page.read_text()), page.name


@pytest.mark.parametrize("name", dx.__all__)
def test_every_public_name_is_there_with_its_docstring(entries, name):
    assert entries["diffexplore"][name]


def test_what_the_functions_return_is_there_too(entries):
    returned = {
        "model": "Job",
        "experiments.sweep": "Grid",
        "experiments.race": "Race",
        "experiments.negative": "NegativeWords",
    }
    for module, name in (
        *returned.items(),
        ("experiments.returns", "Returns"),
        ("samplers", "Sampler"),
        ("looks.curves", "Curve"),
    ):
        assert entries[f"diffexplore.{module}"][name]


def test_no_markup_is_left_as_it_was_typed(entries):
    # Roles, underlined titles, and sections that were not understood: pdoc writes "Arguments" for those that were.
    raw = re.compile(r":(?:meth|func|class|attr|mod):`|^-{4,}$|\bArgs\b", re.MULTILINE)
    assert [(module, name) for module, found in entries.items() for name in found if raw.search(found[name])] == []


def test_the_checks_below_see_what_they_are_about():
    assert {"diffexplore.load", "diffexplore.Model.trace", "diffexplore.Settings.diff", "diffexplore.Trace.load"} < set(
        CALLABLES
    )
    assert {
        "diffexplore.Model.samplers",
        "diffexplore.model.Job.result",
        "diffexplore.experiments.sweep.Grid.plot",
    } < set(CALLABLES)
    assert "ValueError" in raised(dx.load)


@pytest.mark.parametrize("name", CALLABLES)
def test_each_says_what_it_takes_gives_and_refuses(name):
    function, doc = CALLABLES[name]
    assert doc, "no docstring"
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]
    assert [p.name for p in parameters if not re.search(rf"\b{p.name}\b", doc)] == [], "parameters not described"
    assert "return" in function.__annotations__, "the page cannot say what it returns"
    _, _, refusals = doc.partition("Raises:")
    assert {name for name in raised(function) if name not in refusals} == set(), "exceptions not described"
