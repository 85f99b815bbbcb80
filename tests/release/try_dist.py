"""The files in dist/ are installed in a clean environment and compute there; `make dist` ends with it.

    python tests/release/try_dist.py dist build/dist/clean

The wheel of this platform comes with its dependencies from the index, which may take minutes. Then the source distribution follows, with
the compiler at hand and without one.
"""

import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

FORWARD = Path(__file__).with_name("forward.py").resolve()
NO_COMPILER = {"CC": "false", "CXX": "false"}
SAID = "built WITHOUT its compiled CPU kernels"


class Clean:
    """An environment that has seen nothing of the checkout.

    Args:
        folder: folder of the environment; one that is there is emptied.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        venv.create(self.folder, clear=True, with_pip=True)

    def call(self, *command: str, **environment: str) -> str:
        """Output of a command of the environment, called outside the checkout.

        Args:
            command: name of the program in the environment, and its arguments.
            environment: variables that are set for it.

        Raises:
            SystemExit: the command fails.
        """
        path = [str(self.folder / "bin" / command[0]), *command[1:]]
        done = subprocess.run(path, cwd=self.folder, env=os.environ | environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(path)}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def kernels(self) -> str:
        """The line of `kat-zoo env` about the compiled kernels."""
        return next(line for line in self.call("kat-zoo", "env").splitlines() if line.startswith("CPU kernels")).split("  ", 1)[1].strip()


def main(dist: Path, folder: Path) -> None:
    """Try the wheel and the source distribution.

    Args:
        dist: folder of the files.
        folder: folder of the clean environment.

    Raises:
        SystemExit: a file is missing, cannot be installed, or does not compute.
    """
    wheels = list(dist.resolve().glob(f"*manylinux*_{platform.machine()}.whl"))
    sources = list(dist.resolve().glob("*.tar.gz"))
    if len(wheels) != 1 or len(sources) != 1:
        raise SystemExit(f"{dist}: expected a wheel for {platform.machine()} and a source distribution")
    clean = Clean(folder)
    clean.call("pip", "install", "--quiet", str(wheels[0]))
    print("wheel:", clean.call("python", "-I", str(FORWARD)), end="")
    wheel = clean.kernels()

    again = ("pip", "install", "-v", "--no-deps", "--force-reinstall", "--no-cache-dir", str(sources[0]))
    clean.call(*again, KAT_ZOO_REQUIRE_KERNELS="1")
    print("source distribution:", clean.call("python", "-I", str(FORWARD)), end="")
    if clean.kernels() != wheel:
        raise SystemExit(f"kat-zoo env: expected {clean.kernels()!r} of the wheel, as of a build on this machine, not {wheel!r}")

    if SAID not in clean.call(*again, **NO_COMPILER):
        raise SystemExit(f"source distribution without a compiler: expected a line with {SAID!r}")
    print("source distribution without a compiler:", clean.call("python", "-I", str(FORWARD), "--plain"), end="")
    print(f"kat-zoo env: {clean.kernels()}; of the wheel and of a build here: {wheel}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
