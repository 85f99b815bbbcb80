"""The build of the compiled kernels; all else is in pyproject.toml.

The library is loaded by ctypes and knows no Python, so a wheel fits every Python of its platform: py3-none-PLATFORM. It is built by the
compiler at hand, or by Zig (the package ziglang) on Windows, whose own compiler lacks the vector types, and where the environment names
a platform:

    KAT_ZOO_PLATFORM=manylinux_2_28_aarch64  build for that platform, a key of TARGETS
    KAT_ZOO_REQUIRE_KERNELS=1                fail without a compiler instead of going on without kernels
    KAT_ZOO_PAGES="https://HOST/kat_zoo v1"  let the README's pictures and links lead to this repository and tag: a package index,
                                             which shows the README, has no files beside it
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# Platform of a wheel -> target of Zig.
TARGETS = {
    "manylinux_2_28_x86_64": "x86_64-linux-gnu.2.28",
    "manylinux_2_28_aarch64": "aarch64-linux-gnu.2.28",
    "macosx_11_0_arm64": "aarch64-macos.11.0",
    "win_amd64": "x86_64-windows-gnu",
}


def wheel_platform() -> str:
    """Platform to build for with Zig, or "" for this machine with its own compiler.

    Raises:
        SystemExit: a platform without a target.
    """
    platform = os.environ.get("KAT_ZOO_PLATFORM", "")
    if platform and platform not in TARGETS:
        raise SystemExit(f"KAT_ZOO_PLATFORM={platform!r}: expected one of {', '.join(TARGETS)}")
    native = sys.platform == "win32" and sys.maxsize > 2**32 and "arm" not in os.environ.get("PROCESSOR_ARCHITECTURE", "").lower()
    return platform or ("win_amd64" if native and importlib.util.find_spec("ziglang") else "")


PLATFORM = wheel_platform()


class BuildKernels(build_ext):
    """A library without Python's ABI, by Zig or by the compiler at hand; without either, a word about it."""

    def run(self) -> None:
        """Build the library, and say so where it cannot be."""
        if os.environ.get("KAT_ZOO_PLATFORM") or os.environ.get("KAT_ZOO_REQUIRE_KERNELS") == "1":
            for extension in self.extensions:
                extension.optional = False
        super().run()
        if not all(Path(path).exists() for path in self.get_outputs()):
            self.warn("kat_zoo is built WITHOUT its compiled CPU kernels, as neither g++ nor clang++ worked: plain PyTorch is used")

    def build_extension(self, ext) -> None:
        """Compile and link in one call of Zig, or as setuptools does."""
        if not PLATFORM:
            return super().build_extension(ext)
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ziglang", "c++", "-target", TARGETS[PLATFORM], "-shared", "-fPIC", "-s"]
        # The oldest machine of the platform: the kernels choose their instructions as they run.
        command += ["-mcpu=baseline", *ext.extra_compile_args, *ext.sources, "-o", str(library)]
        if subprocess.run(command).returncode:
            raise CompileError(f"Zig did not build {library.name} for {PLATFORM}")

    def get_ext_filename(self, fullname: str) -> str:
        """The file's name, without the tag of a Python."""
        windows = PLATFORM.startswith("win") or (not PLATFORM and sys.platform == "win32")
        return str(Path(*fullname.split("."))) + (".pyd" if windows else ".so")

    def get_export_symbols(self, ext) -> list[str]:
        """The functions that the sources export; there is no PyInit."""
        return []


class PlatformWheel(bdist_wheel):
    """A wheel for every Python of a platform, or for any platform where it holds no kernels."""

    def get_tag(self) -> tuple[str, str, str]:
        """Tag of the wheel."""
        built = all(Path(path).exists() for path in self.get_finalized_command("build_ext").get_outputs())
        return "py3", "none", (PLATFORM or super().get_tag()[2]) if built else "any"


def description() -> str:
    """The README, its relative links absolute where `KAT_ZOO_PAGES` names the repository.

    Raises:
        SystemExit: another form than an address and a tag.
    """
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    pages = os.environ.get("KAT_ZOO_PAGES", "")
    if not pages:
        return text
    if not re.fullmatch(r"https://[^\s]+ [^\s]+", pages):
        raise SystemExit(f"KAT_ZOO_PAGES={pages!r}: expected the repository's address and a tag, as in https://example.org/me/kat_zoo v1.0")
    address, tag = pages.split()

    def absolute(match: re.Match[str]) -> str:
        picture, words, path = match.groups()
        return f"{picture}[{words}]({address.rstrip('/')}/{'raw' if picture else 'blob'}/{tag}/{path})"

    return re.sub(r"(!?)\[([^]]*)\]\((?![a-z]+:|#)([^)]*)\)", absolute, text)


setup(
    long_description=description(),
    long_description_content_type="text/markdown",
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
