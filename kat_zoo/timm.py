"""`python -m kat_zoo.timm SCRIPT [arguments]`: run a script of timm's, or any other, with this package's models registered.

timm's train.py, validate.py and the rest know the models then, without a change to them:

    python -m kat_zoo.timm train.py --model kat_tiny_patch16_224 --data-dir imagenet
    torchrun --nproc-per-node 8 -m kat_zoo.timm train.py --model kat_tiny_patch16_224 --data-dir imagenet

A script of one's own needs no more than the line `import kat_zoo`.
"""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run the script that the command line names, as `python SCRIPT` would.

    Raises:
        SystemExit: no script is named, or it does not exist.
    """
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit("usage: python -m kat_zoo.timm SCRIPT [arguments]")
    script = Path(sys.argv[1])
    if not script.is_file():
        raise SystemExit(f"script={str(script)!r}: expected a file, such as train.py of timm's repository")
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(script.resolve().parent))  # as python does for a script
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
