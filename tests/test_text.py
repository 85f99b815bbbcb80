"""The wording of messages and docstrings. `python tests/test_text.py` lists every offense, and counts them by room."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("kat_zoo", "kernels", "train") for path in (ROOT / folder).rglob("*.py"))

# An entry of Args begins with a noun phrase that can be read alone, or with "whether" or "how". These words begin something else.
PREPOSITIONS = (
    "above among as at below beside between by for from in into like of on out over per to under unless until up with within without"
)
CONJUNCTIONS = "and because but if once or see since so than that then though when where which while who whose"
FRAGMENTS = (
    "accepted belongs called changed counted divides divisible evaluates follows given ignored it left likewise makes prepared "
    "registered tells their they this tries turns used what whatever written"
)
BAD_STARTS = frozenset(f"{PREPOSITIONS} {CONJUNCTIONS} {FRAGMENTS}".split())

IS_NO = (re.compile(r"(?<!\bthere )(?<!\bThere )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|better\b)"), "write 'is not a'")
WHOLE_NUMBER = (re.compile(r"\bwhole numbers?\b"), "write 'an integer'")
IN_MESSAGES = (
    IS_NO,
    WHOLE_NUMBER,
    (re.compile(r"(?<!: )\bexpected\b(?! to\b)"), "write 'name=value: expected ...'"),
)
IN_DOCSTRINGS = (
    IS_NO,
    WHOLE_NUMBER,
    (re.compile(r"(?:^|[.!] )What\b(?![^.]*\?)"), "begin with the thing that is meant, not with 'What'"),
    (re.compile(r"\b(?:for|from|of) what (?:is|was|are|were|it)\b"), "name the thing that is meant by 'what'"),
)
IN_RAISES = (re.compile(r"(?:^|, |\bor )what\b"), "name the thing that is meant by 'what'")

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note):")
ENTRY = re.compile(r"(?P<name>\*{0,2}[\w.]+(?:, \*{0,2}\w+)*): +(?P<text>.*)")


def text_of(node: ast.expr) -> str:
    """A message as one string, with {} for every value that is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) if isinstance(value, ast.Constant) else "{}" for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return "{}"


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of the message of every exception that is made or raised, and of everything that is printed."""
    raised = {node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            if node in raised or name.endswith("Error") or name == "print":
                yield node.lineno, text_of(node.args[0])


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def paragraphs(docstring: str) -> Iterator[tuple[str, int, str, str]]:
    """Parts of a docstring as (section, line within it, name, text); a part of prose has neither section nor name."""
    section = ""
    part: tuple[str, int, str, list[str]] = ("", 0, "", [])
    for number, line in enumerate(docstring.splitlines()):
        heading = SECTION.fullmatch(line)
        entry = ENTRY.match(line[4:]) if section in ("Args", "Attributes", "Raises") and re.match(r" {4}\S", line) else None
        if heading or entry or not line.strip():
            yield part[0], part[1], part[2], " ".join(part[3])
            section = heading[1] if heading else section
            part = (section, number, entry["name"], [entry["text"]]) if entry else (section, number + 1, "", [])
        else:
            part[3].append(line.strip())
    yield part[0], part[1], part[2], " ".join(part[3])


def wrong_entry(text: str) -> str | None:
    """Why an entry of Args cannot be read alone; None if it can."""
    first = re.match(r"[A-Za-z]+(?![\w.])", text)
    if first and first[0].lower() in BAD_STARTS:
        return f"begins with {first[0]!r}: begin with a noun phrase"
    if text.endswith(","):
        return "ends in a comma"
    if not text.startswith("(") and not re.search(r"[A-Za-z]{3}", text):
        return "has no word: say what the symbol is"
    return None


def offenses(source: str) -> list[tuple[int, str, str]]:
    """(line, text, advice) of everything that is worded wrongly."""
    tree = ast.parse(source)
    found = [(line, text, advice) for line, text in messages(tree) for pattern, advice in IN_MESSAGES if pattern.search(text)]
    for start, docstring in docstrings(tree):
        for section, offset, name, text in paragraphs(docstring):
            label = f"{name}: {text}" if name else text
            rules = [*IN_DOCSTRINGS, *([IN_RAISES] if section == "Raises" else [])]
            found += [(start + offset, label, advice) for pattern, advice in rules if pattern.search(text)]
            if name and section in ("Args", "Attributes") and (advice := wrong_entry(text)):
                found.append((start + offset, label, advice))
    return sorted(found)


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in FILES])
def test_wording(path):
    found = offenses(path.read_text())
    assert not found, "\n".join(f"{path.relative_to(ROOT)}:{line}: {text[:120]!r}: {advice}" for line, text, advice in found)


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("raise ValueError(f'size={size}; expected 3')", "name=value: expected"),
        ("raise ValueError(f'expected one of {names}, not {name}')", "name=value: expected"),
        ("raise KeyError('x is ' + 'no tensor')", "is not a"),
        ("print(f'unknown {name}; expected a name', file=stderr)", "name=value: expected"),
        ("raise NotApplicable('one point; expected two')", "name=value: expected"),
        ("raise ValueError(f'{x} is no whole number')", "an integer"),
        ('def f(a):\n    """Add.\n\n    Args:\n        a: of the input.\n    """', "'of'"),
        ('def f(a):\n    """Add.\n\n    Args:\n        a: see `g`.\n    """', "'see'"),
        ('def f(a):\n    """Add.\n\n    Args:\n        a: the first,\n        b: or the last.\n    """', "comma"),
        ('def f(a):\n    """Add.\n\n    Args:\n        a: h.\n    """', "has no word"),
        ('class A:\n    """A.\n\n    Attributes:\n        a: what remains.\n    """', "'what'"),
        ('"""What a run leaves."""', "not with 'What'"),
        ('def f(a):\n    """Raise ValueError for what is not a number."""', "by 'what'"),
        ('def f(a):\n    """Add.\n\n    Raises:\n        ValueError: a bad name, or what g refuses.\n    """', "by 'what'"),
    ],
)
def test_each_rule_finds_its_offense(source, advice):
    assert any(advice in found for _, _, found in offenses(source))


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError(f'size={size!r}: expected an integer of at least 1')",
        "raise ValueError(f'there is no file {path}')",
        'def f(a):\n    """Add what was asked for.\n\n    Args:\n        a: (N, C) inputs.\n        t5: T5 text.\n    """',
        'def f(a):\n    """Do the maps point at it? What is chance? One half."""',
    ],
)
def test_good_wording_passes(source):
    assert offenses(source) == []


if __name__ == "__main__":
    rooms: Counter[str] = Counter()
    for path in FILES:
        for line, text, advice in offenses(path.read_text()):
            print(f"{path.relative_to(ROOT)}:{line}: {text[:120]!r}: {advice}")
            rooms["/".join(path.relative_to(ROOT).parts[:-1])] += 1
    print(*(f"{count:5d}  {room}" for room, count in sorted(rooms.items())), sep="\n")
