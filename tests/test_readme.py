"""The README and docs/: snippets run, commands parse, links lead somewhere, and the tables are what the checked-in data say."""

import contextlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models import get_pretrained_cfg

from kat_zoo.cli.main import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS_CONFIG = ("train", "plan")  # commands that say what they understood, with --print_config, instead of running


def snippets():
    """Every block of Python."""
    found = [(document, *block) for document in DOCUMENTS for block in enumerate(BLOCK.findall(document.read_text()))]
    return [pytest.param(text, id=f"{document.stem}-{n}") for document, n, (language, text) in found if language == "python"]


def commands():
    """Every command in a block of its own language or, without the dollar, in an indented block or between backticks."""
    found = {}
    for document in DOCUMENTS:
        text = document.read_text()
        lines = [line[2:] for language, block in BLOCK.findall(text) if language == "console" for line in block.splitlines()]
        lines += re.findall(r"^    ((?:kat-zoo|python benchmarks/|make|pip) ?.*)$", text.replace("\\\n", " "), re.MULTILINE)
        lines += re.findall(r"`((?:kat-zoo \w+ --|python benchmarks/|make |pip install )[^`\n]*)`", text)
        found |= {f"{document.stem}: {line.split('#')[0].strip()}": line for line in lines}
    return [pytest.param(line, id=name) for name, line in found.items()]


def headings(document):
    """Anchors that GitHub makes of the headings of a document."""
    found = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.fixture
def inputs():
    """The data that the guides speak of: a small table, and images with the detections in them."""
    X = np.random.default_rng(0).uniform(-1, 1, (60, 2))
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1]), "masks": torch.ones(1, 64, 64, dtype=torch.uint8)} for _ in images]
    y = np.sin(X[:, 0]) + X[:, 1]
    samples = {"X": X, "y": y, "Y": y[:, None], "X_val": X[:20], "Y_val": y[:20, None]}
    return {**samples, "images": images, "batch": torch.stack(images), "targets": targets}


@pytest.mark.parametrize("code", snippets())
def test_python_runs_and_prints_what_its_comments_say(code, inputs, threads, tmp_path, monkeypatch):
    threads(1)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "snippet", "exec"), dict(inputs) if "import numpy" not in code else {})
    lines = iter(printed.getvalue().splitlines())
    for expected in re.findall(r"^print\(.*\)  # (True|\S+\*\*\d|\[.*\]|[^ ].*\))$", code, re.MULTILINE):
        assert expected in lines, "not printed, or not in this order"  # takes lines up to it


@pytest.mark.parametrize("line", commands())
def test_command_is_understood(line, capsys, tmp_path, monkeypatch):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(words[1:]) <= targets
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = re.findall(r"\[([\w,]+)\]", line)
        assert all(name in extras for group in asked for name in group.split(","))
    elif "-m" in words:  # python or torchrun
        assert importlib.util.find_spec(words[words.index("-m") + 1])
        assert get_pretrained_cfg(words[words.index("--model") + 1])
    elif words[0] == "python":
        shared = [ROOT / "benchmarks" / "dense_runs.py", *(ROOT / "benchmarks" / "paper").glob("*.py")]
        source = "".join(path.read_text() for path in [ROOT / words[1], *shared])
        assert all(f'"{option}"' in source for option in words if option.startswith("--"))
    elif words[1] in PRINTS_CONFIG:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as stop:
            main([*without_placeholders(words[1:]), "--print_config"])
        assert stop.value.code == 0, capsys.readouterr().err
    else:
        task = words[words.index("--task") :][:2] if "--task" in words else []
        with pytest.raises(SystemExit) as stop:
            main([words[1], *(words[2:3] if words[1] == "kernels" else task), "--help"])
        text = capsys.readouterr().out
        assert stop.value.code == 0
        assert all(option.split("=")[0] in text for option in words[2:] if option.startswith("--"))


def without_placeholders(words):
    """Words of a command without the pairs whose value is a name in capitals, which stands for one of the reader's."""
    kept = []
    for word in words:
        if re.fullmatch(r"[A-Z]+", word):
            kept.pop()
        else:
            kept.append(word)
    return kept


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_lead_to_files_and_headings(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if "auto_gallery" in path.parts:  # written by `make docs` from the script
            path = Path(str(path).replace("auto_gallery", "gallery")).with_suffix(".py")
        assert path.exists(), target
        assert not anchor or anchor in headings(path), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_files_that_are_named_exist(document):
    for name in re.findall(r"`((?:kat_zoo|kernels|train|tests|benchmarks|docs)/[\w./-]+)`", document.read_text()):
        assert (ROOT / name).exists(), name


def test_the_tree_is_the_one_on_disk():
    tree = re.search(r"## The tree\n\n(.*?)\n\n##", README.read_text(), re.DOTALL)[1]
    folders: list[str] = []
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip()) - 4) // 2, line.split()[0]
        folders = [*folders[:depth], name]
        assert (ROOT / "".join(folders)).exists(), line
    packages = {path.parent.name for folder in ("kat_zoo", "train") for path in (ROOT / folder).rglob("__init__.py")}
    assert all(f" {name}/" in tree for name in packages)


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 130


def test_tables_are_current():
    """Fails when a result, a model or the text around it has changed: run `python benchmarks/readme.py`."""
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "readme.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
