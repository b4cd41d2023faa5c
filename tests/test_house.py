"""The house: arrows one way, no circle, nothing private across rooms, files of a size that one can hold in the head."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "diffexplore"

ORDER = [
    {"words", "progress"},
    {"values"},
    {"pocket.world"},
    {"samplers", "mixing"},
    {"settings"},
    {"record"},
    {"pipelines"},
    {"looks", "pocket.judge"},
    {"trace"},
    {"runs"},
    {"model"},
    {"pocket", "pocket.lora"},
    {"experiments"},
    {"rooms"},
    {"widgets"},
    {"pocket.factory"},
    {"cli", "doctor", "bench", ""},
]
"""The rooms, in the order in which they may know each other: each knows those before it, and itself."""

APART = {("looks", "pipelines"), ("experiments", "pocket.lora"), ("rooms", "experiments"), ("widgets", "rooms")}
"""Pairs whose first could know the second by the order, and does not."""

DOORS = {"", "cli", "doctor", "bench"}
"""What opens rooms only when somebody comes: imports inside functions are theirs, and `trace`'s."""

LONG = {"samplers.menu"}  # a menu is data


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


@cache
def imports(module):
    """(module that is imported, name taken from it or None, whether inside a function, whether for types alone) of each
    import of our own, wherever it stands."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    typed = {
        id(node)
        for check in ast.walk(tree)
        if isinstance(check, ast.If) and getattr(check.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(check)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            pairs = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            pairs = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for target, name in pairs:
            if target != "diffexplore" and not target.startswith("diffexplore."):
                continue
            target = target.removeprefix("diffexplore").removeprefix(".")
            below = f"{target}.{name}".removeprefix(".")
            if name is not None and below in MODULES:
                target, name = below, None
            found.append((target, name, id(node) in inner, id(node) in typed))
    return found


def room(module):
    """The longest name in ORDER that a module belongs to."""
    names = [name for rooms in ORDER for name in rooms]
    fitting = [name for name in names if module == name or module.startswith(f"{name}.") or name == module == ""]
    assert fitting, f"{module} is in no room"
    return max(fitting, key=len)


def place(name):
    return next(k for k, rooms in enumerate(ORDER) if name in rooms)


def opens_late(module):
    return module == "trace" or room(module) in DOORS


@pytest.mark.parametrize("module", MODULES)
def test_arrows_go_one_way(module):
    here = room(module)
    for target, name, inside, _ in imports(module):
        there = room(target)
        if inside and opens_late(module):
            continue
        said = f"{module} imports {target or 'diffexplore'}{f' ({name})' if name else ''}"
        assert there == here or place(there) <= place(here), said
        assert (here, there) not in APART, said
        assert there != "pocket.factory" or here == "pocket.factory", f"{said}: nobody imports how models are made"
        assert not inside, f"{said} inside a function"


def test_there_is_no_circle():
    def visit(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for target, _, inside, typed in imports(module):
            passed = (inside and opens_late(module)) or (typed and room(target) == room(module))
            if target in MODULES and target != module and not passed:
                visit(target, [*path, module])
        done.add(module)

    done = set()
    for module in MODULES:
        visit(module, [])


@pytest.mark.parametrize("module", MODULES)
def test_no_private_name_is_used_across_rooms(module):
    for target, name, *_ in imports(module):
        last = target.rsplit(".", 1)[-1]
        private = [one for one in (last, name or "") if one.startswith("_") and not one.startswith("__")]
        assert not private, f"{module} takes {private[0]} from {target}"
    # Nor through a module: `views._decoded`.
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    ours = {target.rsplit(".", 1)[-1] for target, name, *_ in imports(module) if name is None}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
            assert not node.attr.startswith("_") or node.attr.startswith("__"), f"{module}: {node.value.id}.{node.attr}"


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("pocket.factory")])
def test_no_file_is_too_long(module):
    lines = len(MODULES[module].read_text("utf-8").splitlines())
    assert module in LONG or lines <= 500


@pytest.mark.parametrize("module", MODULES)
def test_nobody_knows_a_model_by_its_display_name(module):
    source = MODULES[module].read_text("utf-8")
    named = r"(?:\.name|\[\"model\"\]|\.get\(\"model\"\))"
    assert not re.search(rf"{named}\s*[!=]=\s*\"pocket\"|\"pocket\"\s*[!=]=\s*\w+{named}", source)


def test_the_map_in_contributing_names_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    missing = [
        path.relative_to(PACKAGE).as_posix()
        for name, path in MODULES.items()
        if path.name != "__init__.py" and not re.search(rf"\b{path.stem}\b", text)
    ]
    assert missing == []
