"""Prints the oldest versions that pyproject.toml allows, as requirements for pip.

usage: floors.py [EXTRA ...]
"""

import itertools
import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


def floors(requirements):
    """`name>=1.2` as `name==1.2`; of several floors of one package the highest."""
    found = {}
    for requirement in requirements:
        if requirement.startswith("kat_zoo["):  # an extra of our own, which is named by itself
            continue
        name, extra, version = re.match(r"([\w.-]+)(\[[\w,]+\])?>=([\d.]+)", requirement).groups()
        parts = tuple(map(int, version.split(".")))
        found[name] = max(found.get(name, ((), "", "")), (parts, extra or "", version))
    return [f"{name}{extra}=={version}" for name, (_, extra, version) in found.items()]


if __name__ == "__main__":
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][name] for name in sys.argv[1:]]
    print(*floors([*project["dependencies"], *itertools.chain.from_iterable(extras)]), sep="\n")
