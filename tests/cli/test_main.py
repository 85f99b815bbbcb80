"""Bad input to `kat-zoo`: one line on standard error that says what is wrong, exit code 2, and no file."""

import subprocess
import sys

import pytest
import torch

from kat_zoo.cli import main as cli
from kat_zoo.hub.samples import SHEET

EXPORT = ["export", "test_kat", "--format", "pt2"]
PREDICT = ["predict", str(SHEET), "--model", "test_kat"]
BAD = [
    ([*PREDICT, "--checkpoint", "empty.pth"], "empty.pth is empty"),
    ([*PREDICT, "--checkpoint", "empty.safetensors"], "empty.safetensors is empty"),
    ([*PREDICT, "--checkpoint", "garbage.pth"], "garbage.pth is not weights"),
    ([*PREDICT, "--checkpoint", "pickle.pth"], "pickle.pth does not fit test_kat"),
    (["predict", str(SHEET), "--model", "kat_pico_patch4_28.nope"], "expected one of kat_pico_patch4_28.fmnist"),
    ([*EXPORT, "--checkpoint", "empty.pth"], "empty.pth is empty"),
    ([*EXPORT, "--checkpoint", "missing.pth"], "--checkpoint missing.pth: no such file"),
    ([*EXPORT, "--pretrained"], "'test_kat' has no published weights"),
    ([*EXPORT, "--out", "nowhere/x.pt2"], "--out nowhere/x.pt2: there is no folder nowhere"),
    ([*EXPORT, "--out", "."], "--out .: expected a file"),
    (["export", "test_kat", "--format", "aoti", "--out", "x.so"], "ends in .pt2"),
    (["export", "kat_pico_patch4_28.nope", "--format", "pt2"], "expected one of kat_pico_patch4_28.fmnist"),
    (["kernels"], "SUBCOMMAND"),
    (["kernels", "nope"], "invalid choice: 'nope'"),
    (["kernels", "report"], "TRITON_INTERPRET=1: expected it unset"),
    (["kernels", "report", "--width", "x"], "--width: invalid comma-separated int value: 'x'"),
    (["kernels", "report", "--width", "24,-3"], "width=-3: expected an integer of at least 1"),
    (["kernels", "report", "--width", "0"], "width=0: expected an integer of at least 1"),
    (["kernels", "report", "--arch", "sm_90,h100"], "arch='h100'"),
    (["kernels", "report", "--json", "nowhere/x.json"], "--json nowhere/x.json"),
    (["bench", "--parts", ""], "--parts: '' is empty"),
    (["bench", "--parts", "models,kernels"], "'kernels' is not one of ceilings, rational, attention, splines, models"),
    (["bench", "--seconds", "nan"], "--seconds=nan"),
    (["bench", "--csv", "nowhere/x.csv"], "--csv nowhere/x.csv: there is no folder nowhere"),
    (["predict", "x.png", "--model", "kat_pico_patch4_28.fmnist", "--device", "meta"], "--device meta: expected a device that torch has"),
    (["bench", "--device", "cuda"], "--device cuda: expected --device cpu, as torch sees no GPU"),
    (["bench", "--csv", "empty.pth"], "--csv empty.pth: expected a file of kat-zoo bench, or none"),
]


@pytest.mark.parametrize("argv, message", BAD, ids=[" ".join(argv[-3:]) for argv, _ in BAD])
def test_bad_input_is_one_line_exit_code_2_and_no_file(argv, message, tmp_path, monkeypatch, capsys):
    files = {"empty.pth": b"", "empty.safetensors": b"", "garbage.pth": bytes(range(255, 0, -1)), "pickle.pth": b"\x80\x02" + bytes(99)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.strip().splitlines()) == 1 and not captured.out
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_level_of_the_log(monkeypatch, capsys):
    monkeypatch.setenv("KAT_ZOO_LOG", "loud")
    assert cli.main(["list"]) == 2
    assert capsys.readouterr().err.startswith("kat-zoo: KAT_ZOO_LOG='loud' in the environment: expected one of debug, info")


def test_messages_of_libraries_are_not_repeated():
    """A handler at the root would print what huggingface_hub has printed itself. In a new process: pytest has handlers there."""
    code = "import logging; from kat_zoo.cli import main as cli; cli.main(['nothing']); print(logging.getLogger().handlers)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "usage: kat-zoo COMMAND"),
        (["--version"], 0, "kat_zoo 0."),
        (["predikt"], 2, "did you mean 'predict'?"),
        (["predict", "x.png", "--model", "m", "--chekpoint", "f"], 2, "did you mean --checkpoint?"),
        (["predict", "x.png"], 2, "required: --model"),
        (["predict", "."], 2, ". is not a run, it has no config.json: expected RUN IMAGE..., or IMAGE... --model NAME"),
        (["export", "m", "--format", "tflite"], 2, "invalid choice: 'tflite'"),
        *[
            ([name, "--help"], 0, f"usage: kat-zoo {name}")
            for name in ("list", "demo", "predict", "export", "push", "pull", "convert", "bench")
        ],
    ],
)
def test_help_and_mistakes_are_answered_before_torch_is_imported(arguments, code, said):
    script = (
        "import sys; sys.argv = ['kat-zoo']\nfrom kat_zoo.cli.main import main\n"
        f"try: code = main({arguments})\nexcept SystemExit as stop: code = stop.code\n"
        "print('torch' in sys.modules, code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["False", str(code)] and said in done.stdout + done.stderr


def test_the_package_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "kat_zoo", "list", "kat_pico", "--format", "json"], capture_output=True, text=True, check=True
    )
    assert '"name": "kat_pico_patch4_28.fmnist"' in done.stdout


def test_env_names_versions_and_kernels(capsys):
    assert cli.main(["env"]) == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed["torch"] == torch.__version__.split("+")[0] and "threads" in printed


def exhaust(arguments):
    torch.empty(1 << 60, dtype=torch.uint8)


def test_out_of_memory_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "exhaust", cli.Command(f"{__name__}:exhaust", ""))
    assert cli.main(["exhaust"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("kat-zoo exhaust: out of memory: smaller batches") and said.count("\n") == 1


@pytest.mark.slow
def test_every_help_works_without_docstrings():
    """Under -OO they are None."""
    script = (
        "import contextlib, io, sys; from kat_zoo.cli.main import COMMANDS, main\n"
        "more = [['predict', '--task', 'detection'], ['train', '--task', 'segmentation'], ['kernels', 'report']]\n"
        "for argv in [[name] for name in COMMANDS] + more:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "        try: code = main([*argv, '--help'])\n"
        "        except SystemExit as stop: code = stop.code\n"
        "    print(*argv, code, text.getvalue().startswith('usage: kat-zoo'))"
    )
    done = subprocess.run([sys.executable, "-OO", "-c", script], capture_output=True, text=True)
    rows = done.stdout.splitlines()
    assert done.returncode == 0 and len(rows) == len(cli.COMMANDS) + 3 and all(row.endswith(" 0 True") for row in rows), done.stderr[-500:]
