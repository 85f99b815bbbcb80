"""The scripts for the shells, asked as the shells ask them; zsh and fish where they are installed."""

import re
import shutil
import subprocess
import sys

import pytest

from kat_zoo.cli.completion import SOURCES, words
from kat_zoo.cli.main import COMMANDS, main


@pytest.fixture(scope="module")
def scripts():
    code = (
        "import sys; sys.argv = ['kat-zoo']\nfrom kat_zoo.cli.main import main\n"
        "main(['completion', sys.orig_argv[-1]])\nassert 'torch' not in sys.modules"
    )
    return {
        shell: subprocess.run([sys.executable, "-c", code, shell], capture_output=True, text=True, check=True).stdout
        for shell in ("bash", "zsh", "fish")
    }


def complete(script, *typed):
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in typed)
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(typed) - 1}; _kat_zoo; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    return subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("pre",), {"predict"}),
        (("ex",), {"explore", "export"}),
        (("--v",), {"--version"}),
        (("export", "m", "--format", ""), {"onnx", "pt2", "aoti"}),
        (("export", "m", "--form"), {"--format"}),
        (("train", "--config", "kat_pico_f"), {"kat_pico_fmnist", "kat_pico_fmnist_rationals"}),
        (("train", "--data.max_un"), {"--data.max_unreadable"}),
        (("train", "--task", ""), {"classification", "detection", "segmentation"}),
        (("train", "--resume", ""), {"no", "auto"}),
        (("train", "--schedule.warmup_e"), {"--schedule.warmup_epochs"}),
        (("predict", "runs/mi"), set()),  # left to the files
        (("completion", ""), {"bash", "zsh", "fish"}),
        (("plan", "--gpu"), {"--gpus", "--gpu-memory"}),
        (("validate", "--con"), {"--config", "--confusion"}),
        (("validate", "--ru"), {"--run"}),
        (("predict", "a.png", "--min"), {"--min-score"}),
        (("formula", "--targ"), {"--target", "--target-units"}),
        (("scenes", "--min"), {"--min_visible"}),
        (("kernels", ""), {"report", "hub-export"}),
        (("kernels", "report", "--ar"), {"--arch"}),
    ],
)
def test_bash_offers_commands_options_and_choices(scripts, typed, offered):
    assert set(complete(scripts["bash"], "kat-zoo", *typed)) == offered


def test_every_command_is_completed():
    assert words().keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", SOURCES)
def test_options_read_from_the_source_are_those_of_the_help(command, capsys):
    helped = set()
    for subcommand in ("report", "hub-export") if command == "kernels" else ("",):
        with pytest.raises(SystemExit):
            main([command, *filter(None, [subcommand]), "--help"])
        helped |= set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", capsys.readouterr().out, re.MULTILINE))
    helped, options = helped - {"--config", "--print_config"}, words()[command].options.keys()
    sections = {option.partition(".")[0] for option in options if "." in option}
    assert len(helped) >= 2 and helped - sections <= options
    if command not in ("plan", "predict", "validate"):  # which take the settings of other tasks too
        assert helped == options


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish(scripts, tmp_path, monkeypatch):
    (tmp_path / "kat-zoo.fish").write_text(scripts["fish"])
    monkeypatch.setenv("HOME", str(tmp_path))

    def ask(line):
        command = f"source kat-zoo.fish; complete -C '{line}'"
        done = subprocess.run(["fish", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        return {row.split("\t")[0] for row in done.stdout.splitlines()}

    assert ask("kat-zoo pred") == {"predict"} and ask("kat-zoo export m --format ") == {"onnx", "pt2", "aoti"}
    assert ask("kat-zoo train --data.max_un") == {"--data.max_unreadable"}


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh(scripts, tmp_path):
    (tmp_path / "_kat-zoo").write_text(scripts["zsh"])
    setup = (
        "autoload -Uz compinit; compinit -u -D; compadd() { [[ $1 == -- ]] && shift; print -rl -- $@ }; _files() { print files }; "
        "_describe() { print -rl -- ${(P)2} }; source ./_kat-zoo; "
    )

    def ask(*line):
        command = f"{setup} words=({' '.join(line)}); CURRENT=$#words; _kat_zoo"
        return subprocess.run(["zsh", "-f", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split("\n")

    assert "predict:classify image files, or draw objects or regions found in them" in ask("kat-zoo", "pre")
    assert {"onnx", "pt2", "aoti"} <= set(ask("kat-zoo", "export", "m", "--format", "o"))
    assert "--data.max_unreadable" in ask("kat-zoo", "train", "--da")
