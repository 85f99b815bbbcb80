"""Commands that meet a damaged image in a loader worker, for test_workers.py; the argument is a JSON list of command lines.

Each but the last runs in a fork of this process, which has imported everything; the last ends this process itself.
"""

import json
import os
import sys
from multiprocessing import get_context

from kat_zoo.cli.main import main


def run(command):
    sys.exit(main(command))


if __name__ == "__main__":
    *forked, last = json.loads(sys.argv[1])
    for command in forked:
        process = get_context("fork").Process(target=run, args=(command,))
        process.start()
        process.join(120)
        print(process.exitcode, flush=True)  # None: it never ended
        if process.exitcode is None:
            os.kill(process.pid, 9)
    run(last)
