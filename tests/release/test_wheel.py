"""Wheels: their tags, their library, and a forward pass of one that is installed where the checkout cannot be seen."""

import ctypes
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from platform import machine

import pytest

from kat_zoo.kernels import cpu_library

ROOT = Path(__file__).parents[2]
VENDORED = [path for path in sys.path if path.endswith("site-packages")]


def build(tmp_path, **environment):
    """The wheel of the tracked files, built in a copy; nothing is fetched."""
    source = tmp_path / "source"
    source.mkdir()
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if name.startswith(("kat_zoo/", "kernels/", "train/")) or "/" not in name:
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / "out"), "-v", "."]
    done = subprocess.run(command, cwd=source, env=os.environ | environment, capture_output=True, text=True)
    return done, next((tmp_path / "out").glob("*.whl"), None)


def library(wheel):
    """Names and bytes of the wheel's compiled files."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith((".so", ".pyd"))}


@pytest.mark.slow
def test_a_wheel_installs_and_computes(tmp_path):
    """In an environment with the dependencies of this one, and without its kat_zoo."""
    done, wheel = build(tmp_path, KAT_ZOO_REQUIRE_KERNELS="1")
    assert wheel is not None, done.stdout + done.stderr
    assert wheel.name.split("-")[2:4] == ["py3", "none"] and list(library(wheel)) == ["kat_zoo/kernels/_cpu.so"]
    venv.create(tmp_path / "venv", with_pip=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    (site / "dependencies.pth").write_text("\n".join(VENDORED))  # after its own packages, and without their .pth files
    done = subprocess.run([python, "-I", ROOT / "tests/release/forward.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout and "C++" in done.stdout


@pytest.mark.slow
def test_without_a_compiler(tmp_path):
    """The build says so and goes on; a release does not."""
    done, wheel = build(tmp_path, CC="false", CXX="false")
    assert "built WITHOUT its compiled CPU kernels" in done.stdout + done.stderr
    assert wheel.name.endswith("py3-none-any.whl") and not library(wheel)
    (tmp_path / "strict").mkdir()
    done, wheel = build(tmp_path / "strict", CC="false", CXX="false", KAT_ZOO_REQUIRE_KERNELS="1")
    assert done.returncode and wheel is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("platform", "magic"),
    [
        ("manylinux_2_28_x86_64", {0: b"\x7fELF", 18: b"\x3e\x00"}),
        ("manylinux_2_28_aarch64", {0: b"\x7fELF", 18: b"\xb7\x00"}),
        ("macosx_11_0_arm64", {0: b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01"}),
        ("win_amd64", {0: b"MZ"}),
    ],
)
def test_a_wheel_for_another_platform(tmp_path, platform, magic):
    """The kind of its library, by its first bytes; at home it chooses the instructions that a build with the compiler at hand does."""
    done, wheel = build(tmp_path, KAT_ZOO_PLATFORM=platform)
    assert wheel is not None, done.stdout + done.stderr
    assert wheel.name.endswith(f"py3-none-{platform}.whl")
    ((name, content),) = library(wheel).items()
    assert name.endswith(".pyd" if platform == "win_amd64" else ".so")
    for offset, expected in magic.items():
        assert content[offset : offset + len(expected)] == expected
    assert b"kat_rational_forward" in content
    if platform == f"manylinux_2_28_{machine()}" and sys.platform == "linux":
        (tmp_path / "_cpu.so").write_bytes(content)
        best = ctypes.CDLL(str(tmp_path / "_cpu.so")).kat_best_isa()
        assert cpu_library.ISAS[best] == cpu_library.ISAS[cpu_library.load().kat_best_isa()]  # as a build on this machine chooses


def test_a_package_index_shows_the_pictures_of_the_repository():
    """The README is shown there without the files beside it."""

    def readme(**environment):
        command = [sys.executable, "setup.py", "--long-description"]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
        return done.stdout.strip() or done.stderr

    assert readme() == (ROOT / "README.md").read_text().strip()
    shown = readme(KAT_ZOO_PAGES="https://example.org/me/kat_zoo v9.9")
    assert "](https://example.org/me/kat_zoo/raw/v9.9/docs/predictions.png)" in shown
    assert "[weights](https://example.org/me/kat_zoo/blob/v9.9/docs/results.md#weights-that-ship)" in shown
    assert "](docs" not in shown
    assert "KAT_ZOO_PAGES='here': expected the repository's address and a tag" in readme(KAT_ZOO_PAGES="here")


def test_an_unknown_platform_is_refused(tmp_path):
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, env=os.environ | {"KAT_ZOO_PLATFORM": "vax"}, capture_output=True, text=True
    )
    assert done.returncode and "KAT_ZOO_PLATFORM='vax': expected one of manylinux_2_28_x86_64" in done.stderr
