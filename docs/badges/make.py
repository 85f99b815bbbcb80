"""Badges of the README, from pyproject.toml: python docs/badges/make.py. They are files, so that no other host is asked."""

import re
import sys
from html import escape
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
LETTER, MARGIN = 6.6, 8  # pixels; the mean width of a letter of 11 pixels

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{left}: {right}">
  <title>{left}: {right}</title>
  <clipPath id="round"><rect width="{width}" height="20" rx="3"/></clipPath>
  <g clip-path="url(#round)">
    <rect width="{split}" height="20" fill="#3d4450"/>
    <rect x="{split}" width="{rest}" height="20" fill="#b53d0b"/>
  </g>
  <g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
    <text x="{middle_left}" y="14">{left}</text>
    <text x="{middle_right}" y="14">{right}</text>
  </g>
</svg>
"""


def badge(left: str, right: str) -> str:
    """An SVG file of two words."""
    split, rest = (round(LETTER * len(text) + 2 * MARGIN) for text in (left, right))
    sizes = {"width": split + rest, "split": split, "rest": rest, "middle_left": split / 2, "middle_right": split + rest / 2}
    return SVG.format(left=escape(left), right=escape(right), **sizes)


def badges() -> dict[str, str]:
    """Content by file name."""
    settings = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())
    project, (oldest, newest) = settings["project"], (word.removesuffix("-*") for word in settings["tool"]["cibuildwheel"]["build"])
    python = " to ".join(re.sub(r"cp3(\d+)", r"3.\1", word) for word in (oldest, newest))
    facts = {"version": project["version"], "python": python, "license": project["license"]}
    return {f"{left}.svg": badge(left, right) for left, right in facts.items()}


if __name__ == "__main__":
    for name, content in badges().items():
        (FOLDER / name).write_text(content)
