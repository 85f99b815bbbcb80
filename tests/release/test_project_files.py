"""Files that a host of the repository reads: they name this version, and run what anyone can run here."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

import kat_zoo

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="the source distribution holds no workflows")


def read(path):
    return yaml.safe_load((ROOT / path).read_text())


def test_one_version():
    assert str(read("CITATION.cff")["version"]) == kat_zoo.__version__
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == kat_zoo.__version__


def test_badges_are_those_of_this_version():
    made = runpy.run_path(str(ROOT / "docs" / "badges" / "make.py"))["badges"]()
    for name, content in made.items():
        assert (ROOT / "docs" / "badges" / name).read_text() == content
        assert f"(docs/badges/{name})" in (ROOT / "README.md").read_text()


def test_citation_has_what_its_format_requires():
    citation = read("CITATION.cff")
    assert citation.keys() >= {"cff-version", "message", "title", "authors"} and citation["license"] == "MIT"
    assert all(reference.keys() >= {"type", "title", "authors"} for reference in citation["references"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_make_and_nothing_else(path):
    """Each step is an action or a target of the Makefile; every job ends in time and has read access at most, unless it says more."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 360
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d[\d.]*|release/v\d)", step["uses"])
            elif step["run"] != ".ci/run":
                command, target = step["run"].split()
                assert command == "make" and target in targets


def test_the_site_is_published_from_where_make_docs_writes_it():
    steps = read(".github/workflows/docs.yml")["jobs"]["build"]["steps"]
    (folder,) = [step["with"]["path"] for step in steps if "upload-pages-artifact" in step.get("uses", "")]
    assert re.search(rf"sphinx .* docs {folder}$", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_issue_forms_ask_for_the_environment(form):
    body = read(f".github/ISSUE_TEMPLATE/{form}.yml")["body"]
    assert "kat-zoo env" in next(field for field in body if field.get("id") == "env")["attributes"]["label"]


def test_lint_holds_every_file_of_the_host_against_its_schema():
    lint = re.search(r"^lint:.*?\n\n", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)[0]
    checked = {path for word in re.findall(r"\S+\.(?:yml|cff)", lint) for path in ROOT.glob(word)}
    assert checked == {ROOT / "CITATION.cff", *(ROOT / ".github").rglob("*.yml")}


def test_pre_commit_is_make_lint():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == ["make lint"]
