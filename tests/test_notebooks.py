"""The notebooks as files: clean, openable on Colab, and with one way of installing there. nbval runs them."""

import ast
import builtins
import json
import re
import sys
import tomllib
import types
from importlib.metadata import version
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

# What Colab has before anything is installed, its CPU and its GPU runtime alike (torch apart from its "+cpu" there):
# pip-freeze.txt and pip-freeze.gpu.txt of github.com/googlecolab/backend-info, commit a724079 of 2026-08-19.
COLAB_PYTHON = "3.13.15"
COLAB = {
    "accelerate": "1.14.0",
    "anywidget": "0.9.21",
    "diffusers": "0.39.0",
    "huggingface-hub": "1.27.0",
    "ipykernel": "6.17.1",
    "ipython": "7.34.0",
    "ipywidgets": "7.7.1",
    "matplotlib": "3.10.0",
    "numpy": "2.1.3",
    "peft": "0.20.0",
    "pillow": "11.3.0",
    "pydantic": "2.13.4",
    "safetensors": "0.8.0",
    "tokenizers": "0.22.2",
    "torch": "2.11.0+cu128",
    "tqdm": "4.67.3",
    "traitlets": "5.7.1",
    "transformers": "5.15.0",
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def book(path):
    return json.loads(path.read_text())


def cell(path, kind):
    (found,) = [c for c in book(path)["cells"] if c["id"] == kind]
    return "".join(found["source"])


def place():
    """(owner/name, tag) of the repository: what the page for teachers says."""
    return re.search(
        r"mybinder\.org/v2/gh/([\w.-]+/[\w.-]+)/([\w.-]+)\?", (ROOT / "binder/README.md").read_text()
    ).groups()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_outputs_and_no_widget_metadata(path):
    content = book(path)
    assert "widgets" not in content["metadata"]
    for c in content["cells"]:
        assert not c.get("outputs")
        assert c.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_starts_with_the_install_cell_and_ends_with_its_own_link(path):
    cells = book(path)["cells"]
    assert [cells[0]["id"], cells[-1]["id"]] == ["colab-install", "colab-badge"]
    repository, tag = place()
    assert "![" not in cell(path, "colab-badge"), "a picture would be fetched from elsewhere by every reader"
    assert f"/github/{repository}/blob/{tag}/notebooks/{path.name})" in cell(path, "colab-badge")
    assert f"git+https://github.com/{repository}@{tag}" in cell(path, "colab-install")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_install_cell_is_one_collapsed_line(path):
    first = book(path)["cells"][0]
    assert first["metadata"] == {"cellView": "form", "jupyter": {"source_hidden": True}}
    assert first["source"][0].startswith("# @title Install")


def test_the_first_notebook_starts_with_a_widget_that_draws_by_itself():
    first = book(NOTEBOOKS[0])["cells"][1]
    assert first["metadata"]["tags"] == ["first-screen"]
    assert first["metadata"]["jupyter"] == {"source_hidden": True}
    assert "dx.Explorer(" in "".join(first["source"])
    assert "live=True" in "".join(first["source"])


def texts(path):
    return ["".join(c["source"]) for c in book(path)["cells"] if c["cell_type"] == "markdown"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_opens_with_its_goal_its_time_and_what_is_needed(path):
    opening = texts(path)[0]
    assert re.match(r"# \S", opening)
    first = opening.split("##")[0]
    assert re.search(r"\*\*Goal:\*\* \w", first)
    assert re.search(r"\*\*Time:\*\*\s+\d+\s+minutes", first)
    assert re.search(r"\*\*You\s+need:\*\*.*\b(GPU|network)\b", first, re.DOTALL)
    assert re.search(r"\[\s*glossary\]\(glossary\.md\)", first)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_ends_with_a_question_whose_answer_is_folded_away(path):
    question, answer = re.split(
        r"<details><summary>Answer</summary>\n\n", texts(path)[-2].split("## A last question")[1]
    )
    assert "?" in question or "Name " in question
    assert len(answer.split("</details>")[0].split()) > 20
    for text in texts(path):
        # Markdown inside is read only where it stands alone; one that is never closed hides all that follows.
        assert len(re.findall(r"<details><summary>[^<]+</summary>\n\n", text)) == text.count("<details")
        assert text.count("\n\n</details>\n") + text.endswith("\n\n</details>") == text.count("<details")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_links_to_other_pages_lead_somewhere(path):
    for text in texts(path)[:-1]:
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            assert target.startswith("https://") or (path.parent / target).is_file(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_widget_to_play_with_comes_before_every_other_output(path):
    sources = ["".join(c["source"]) for c in book(path)["cells"][1:] if c["cell_type"] == "code"]
    assert re.search(r"dx\.(Explorer|Compare)\(", sources[0])
    assert re.fullmatch(r"\w+", sources[0].rstrip().splitlines()[-1]), "and is what the cell shows"


def test_the_views_have_the_names_that_their_buttons_have():
    words = (ROOT / "diffexplore/widgets/browser/films.js").read_text()
    named = re.findall(r"\| (\w+) \S+ \|", cell(NOTEBOOKS[0], "cell-00"))
    assert named == re.findall(r'word: "(\w+)", symbol', words)


def test_the_glossary_has_the_words_of_controls_and_views_in_order():
    lines = (ROOT / "notebooks/glossary.md").read_text().splitlines()
    found = [re.match(r"\*\*([\w -]+)", line)[1].strip() for line in lines if line.startswith("**")]
    assert found == sorted(found, key=str.lower)
    assert {
        *(
            "Adherence",
            "Change",
            "Estimate",
            "Guidance",
            "Latents",
            "LoRA",
            "Negative prompt",
            "Noise",
            "Pin",
            "Prompt",
        ),
        *("Sampler", "Seed", "Step", "What if"),
    } <= set(found)


def test_all_install_cells_are_equal():
    assert len({cell(path, "colab-install") for path in NOTEBOOKS}) == 1


def run_install(monkeypatch):
    magics = []
    shell = types.SimpleNamespace(run_line_magic=lambda name, line: magics.append((name, line)))
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    exec(TransformerManager().transform_cell(cell(NOTEBOOKS[0], "colab-install")), {})
    return magics


def test_the_install_cell_does_nothing_elsewhere(monkeypatch, capsys):
    assert run_install(monkeypatch) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("gpu", [True, False])
def test_on_colab_it_installs_keeps_what_is_there_and_says_whether_there_is_a_gpu(monkeypatch, capsys, gpu):
    import torch

    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "T4")
    written = []
    monkeypatch.setattr(Path, "write_text", lambda self, text: written.append((str(self), text)))
    ((name, line),) = run_install(monkeypatch)
    ((kept, pins),) = written
    assert name == "pip"
    assert f"-c {kept} " in line
    for package in ("torch", "ipywidgets"):
        assert f"{package}=={version(package)}" in pins.splitlines()
    said = capsys.readouterr().out
    assert ("has a GPU: T4" if gpu else "has no GPU") in said
    assert said.count("\n") == 1


def test_on_colab_nothing_is_replaced_that_its_kernel_has_imported():
    """Each requirement is met by what Colab has, torch and ipywidgets first of all; the LoRA extra's too. Only
    diffusers and the hub's client are replaced: that diffusers loads no LoRA that has a part for the text encoder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert COLAB_PYTHON in SpecifierSet(project["requires-python"])
    wanted = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["lora"]]
    assert {"torch", "ipywidgets", "anywidget", "peft"} <= {r.name for r in wanted}
    unmet = {r.name for r in wanted if COLAB.get(canonicalize_name(r.name), "0") not in r.specifier}
    assert unmet == {"diffusers", "huggingface_hub"}


def test_what_the_install_cell_keeps_is_what_colab_has():
    source = cell(NOTEBOOKS[0], "colab-install")
    assert set(ast.literal_eval(re.search(r"own = (\(.*\))", source)[1])) <= set(COLAB)
    assert "[" not in re.search(r"%pip (.*)", source)[1], "an extra would ask for more than the test above looks at"
