"""push, pull and convert against the loopback Hub: timm, transformers and huggingface_hub read what was uploaded, bit-equal."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard, snapshot_download
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save

import kat_zoo  # noqa: F401
from kat_zoo.cli.main import main
from kat_zoo.hub.conversion import convert
from kat_zoo.hub.repository import Origin, dumps, model_config, save_model
from kat_zoo.hub.samples import load_samples
from kat_zoo.hub.sync import pull, push
from kat_zoo.train.classification.evaluate import Evaluation
from kat_zoo.train.classification.origin import origin
from kat_zoo.train.classification.recipe import DataConfig, ModelConfig, Recipe
from kat_zoo.train.core.checkpoint import save_weights
from kat_zoo.train.core.config import to_yaml

from .server import TOKEN, Reply

KWARGS = {"depth": 3, "img_size": 28, "patch_size": 4, "in_chans": 1}
FILES = ["README.md", "config.json", "curves.png", "metrics.jsonl", "model.safetensors", "recipe.yaml", "result.json"]
REPO = "ours/test"


@pytest.fixture
def logged_in(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = timm.create_model("test_kat", num_classes=10, **KWARGS).eval()
    return model


@pytest.fixture
def run(tmp_path, trained):
    """The folder that `kat-zoo train` leaves."""
    folder = tmp_path / "my_run"
    folder.mkdir()
    data = DataConfig("fashion_mnist", str(tmp_path), input_size=(1, 28, 28), mean=(0.286,), std=(0.353,), crop_pct=1.0)
    recipe = Recipe(str(folder), model=ModelConfig("test_kat", KWARGS), data=data)
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    save_weights(trained.state_dict(), folder / "model.safetensors", 2)
    classes = load_samples().classes
    preprocessing = {"input_size": data.input_size, "mean": data.mean, "std": data.std, "crop_pct": data.crop_pct}
    (folder / "config.json").write_bytes(dumps(model_config(trained, classes, preprocessing, origin(recipe))))
    result = Evaluation(10_000, 1.6, 50.123, 90.0, (50.0,) * 10)
    records = [{"update": 1, "loss": 2.0}, {"update": 2, "loss": 1.5}, {"update": 2, "top1": 50.0, "eval_loss": 1.6}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "result.json").write_text(json.dumps(asdict(result) | {"classes": classes}))
    Image.new("RGB", (96, 36)).save(folder / "curves.png")
    (folder / "checkpoints").mkdir()
    save_weights(trained.state_dict(), folder / "events.safetensors")
    return folder


@pytest.fixture
def image():
    return torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_push_and_read_back(hub, run, trained, image, logged_in, tmp_path, monkeypatch):
    done = push(run, REPO, license="mit")
    assert (sorted(done.files), done.changed, done.commit) == (FILES, True, hub.repos[REPO].refs["main"])
    assert not hub.repos[REPO].private
    with torch.inference_mode():
        expected = trained(image)
        loaded = timm.create_model(f"hf-hub:{REPO}", pretrained=True).eval()
        assert torch.equal(loaded(image), expected)
        assert loaded.pretrained_cfg["label_names"][0] == "T-shirt/top" and loaded.pretrained_cfg["crop_pct"] == 1.0
        assert torch.equal(_transformers(REPO)(image).logits, expected)
        folder = Path(snapshot_download(REPO))
        assert torch.equal(timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(image), expected)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "update": "2"}
    ran, told = (yaml.safe_load((place / "recipe.yaml").read_text()) for place in (run, folder))
    assert told == {**ran, "output": "runs/my_run", "data": {**ran["data"], "root": None}}
    assert str(tmp_path) not in (folder / "config.json").read_text()  # no local path
    check_card(ModelCard.load(REPO), tmp_path, monkeypatch)


def _transformers(repo):
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(repo)
    assert model.config.id2label[9] == "Ankle boot"
    return model.eval()


def check_card(card, folder, monkeypatch):
    """The metadata says what it should, and the code of the section Usage runs."""
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "timm", "image-classification")
    result = data.eval_results[0]
    assert (result.dataset_type, result.metric_value, result.source_name) == ("zalando-datasets/fashion_mnist", 50.12, "ours")
    code = card.content.split("```python\n")[1].split("```")[0]
    assert f"hf-hub:{REPO}" in code
    Image.new("L", (40, 50)).save(folder / "image.png")
    monkeypatch.chdir(folder)
    names = {}
    exec(code, names)
    assert names["embedding"].shape == (1, 64) and names["top5"].indices.shape == (1, 5) and names["maps"][0].ndim == 4


def test_idempotent_and_resumable(hub, run, logged_in):
    first = push(run, REPO)
    hub.log.clear()
    second = push(run, REPO)
    assert (second.changed, second.commit) == (False, first.commit)
    assert not [entry for entry in hub.log if entry[0] == "PUT" or "/commit/" in entry[1]]
    del hub.repos[REPO]  # as if the first push had ended before its commit: the weights are there, nothing else
    hub.log.clear()
    assert push(run, REPO).changed
    assert not [entry for entry in hub.log if entry[0] == "PUT"]


def test_private_branch_and_pull_request(hub, run, trained, image, logged_in, tmp_path):
    assert push(run, REPO, private=True, revision="v2").changed
    assert hub.repos[REPO].private and hub.repos[REPO].commits[hub.repos[REPO].refs["main"]] == {}
    request = push(run, REPO, create_pr=True)
    assert request.url == f"{hub.url}/{REPO}/discussions/1"
    for revision in ("v2", "refs/pr/1"):
        folder = pull(REPO, tmp_path / revision.replace("/", "_"), revision=revision)
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        assert torch.equal(model(image), trained(image))


def test_dry_run_asks_nothing(hub, run, capsys):
    assert main(["push", str(run), "--repo", REPO, "--dry-run"]) == 0
    assert "model.safetensors" in (out := capsys.readouterr().out) and "nothing uploaded" in out
    assert not hub.log and not hub.repos


@pytest.mark.parametrize(
    ("arguments", "token", "says"),
    [
        (["--repo", REPO], None, "no Hugging Face token"),
        (["--repo", "theirs/test"], TOKEN, "no right to write to theirs/test"),
        (["--repo", "ours/other"], TOKEN, "ours/other exists and holds test_vit, not test_kat"),
        (["--repo", "ours/other", "--private", "--replace"], TOKEN, "exists and is public"),
        (["--repo", "ours/card"], TOKEN, "ours/card exists and holds README.md, but no config.json"),
        (["--repo", "ours/list"], TOKEN, "ours/list exists and holds None, not test_kat"),
        (["--repo", "test"], TOKEN, "expected org/name"),
        (["--repo", "ours/a b", "--dry-run"], TOKEN, "repo='ours/a b': expected org/name"),
        (["--repo", REPO, "--pr", "--revision", "v2"], TOKEN, "a pull request is made against main"),
        (["--repo", REPO, "--weights", "best"], TOKEN, "has no best.safetensors"),
    ],
)
def test_refusals(hub, run, monkeypatch, capsys, arguments, token, says):
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN", raising=False)
    hub.add("ours/other", {"config.json": b'{"architecture": "test_vit"}'})
    hub.add("ours/list", {"config.json": b"[1]"})
    hub.add("ours/card", {"README.md": b"of the user's own"})
    assert main(["push", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_replace(hub, run, logged_in):
    hub.add(REPO, {"config.json": b'{"architecture": "test_vit"}'})
    assert push(run, REPO, replace=True).changed
    assert json.loads(hub.repos[REPO].commits[hub.repos[REPO].refs["main"]]["config.json"].data)["architecture"] == "test_kat"


def test_best_weights_have_no_figures_of_the_last(hub, run, trained, logged_in):
    hub.add(REPO, {"notes.txt": b"of the user's own"})
    push(run, REPO)
    save_weights(trained.state_dict(), run / "best.safetensors", 1)
    assert push(run, REPO, weights="best").changed
    files = hub.repos[REPO].commits[hub.repos[REPO].refs["main"]]
    assert "result.json" not in files and {"model.safetensors", "recipe.yaml", "notes.txt"} <= files.keys()


def test_a_hub_that_stops_answering_is_not_an_empty_repository(hub, run, logged_in):
    hub.add("ours/other", {"config.json": b'{"architecture": "test_vit"}'})
    hub.damage, hub.damage_head = {"config.json": lambda _: Reply(502)}, {"config.json"}
    with pytest.raises(ConnectionError, match="the Hub does not answer"):
        push(run, "ours/other")
    assert len(hub.repos["ours/other"].commits) == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", {"architecture": "my_model"}, "config.json does not describe a model: model='my_model': expected a registered"),
        ("config.json", {"model_args": {"depht": 2}}, "config.json does not describe a model: .*depht"),
        ("recipe.yaml", "a: [", "recipe.yaml is not YAML"),
    ],
)
def test_a_run_that_is_damaged_is_refused_in_a_line(run, name, content, says):
    path = run / name
    path.write_text(content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content))
    with pytest.raises(ValueError, match=says):
        push(run, REPO, dry_run=True)


def test_not_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no config.json: expected a folder of kat-zoo train"):
        push(tmp_path, REPO)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        push(tmp_path / "nothing", REPO)


def test_pull_refusals(hub, tmp_path):
    hub.add("ours/text", {"README.md": b"hello"})
    hub.add("ours/damaged", {"config.json": b"{}", "model.safetensors": b"<html>"})
    hub.add("ours/login", {"config.json": b"<html>", "model.safetensors": save({"x": torch.zeros(1)})})
    for repo, error, says in [
        ("ours/nothing", FileNotFoundError, "the Hub has no ours/nothing"),
        ("ours/text", FileNotFoundError, "has no config.json"),
        ("ours/damaged", ValueError, "model.safetensors is damaged"),
        ("ours/login", ValueError, "config.json is damaged: it is not a JSON object"),
    ]:
        with pytest.raises(error, match=says):
            pull(repo, tmp_path / repo)
    assert not [path for _, path in hub.log if path.endswith("README.md")]  # what holds no model is not downloaded
    home = tmp_path / "home"
    (home / ".cache" / "huggingface" / "hub").mkdir(parents=True)
    with pytest.raises(ValueError, match="home is not empty, and not what an earlier pull left"):
        pull("ours/login", home)
    hub.add("ours/damaged", {"model.safetensors": save({"x": torch.zeros(1)})})
    assert pull("ours/damaged", tmp_path / "ours/damaged").is_dir()


def test_what_a_repository_no_longer_has_is_deleted(hub, tmp_path):
    hub.add("ours/a", {"config.json": b"{}", "model.safetensors": save({"x": torch.zeros(1)}), "result.json": b"{}", "a/notes.txt": b"a"})
    hub.add("ours/b", {"config.json": b"{}", "model.safetensors": save({"y": torch.zeros(1)})})
    folder = pull("ours/a", tmp_path / "x")
    (folder / "mine.txt").write_text("of the user's own")
    pull("ours/b", folder)
    left = {path.name for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts}
    assert left == {"config.json", "model.safetensors", "mine.txt"} and load_file(folder / "model.safetensors").keys() == {"y"}


def flashkat(state_dict):
    renamed = {}
    for name, value in state_dict.items():
        if name.endswith("weight_numerator"):
            name, value = name.replace("weight_numerator", "numerator_v"), value.repeat(8, 1)
        renamed[name.replace("weight_denominator", "denominator_v")] = value
    return renamed


WRAPPERS = {"upstream": dict, "flashkat": flashkat, "ema": lambda s: {"state_dict_ema": s}}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_convert(tmp_path, wrapper, hub, logged_in):
    torch.manual_seed(0)
    model = timm.create_model("test_kat", num_classes=7).eval()
    torch.save(WRAPPERS[wrapper](model.state_dict()), tmp_path / "upstream.pth")
    assert main(["convert", str(tmp_path / "upstream.pth"), str(tmp_path / "out"), "--model", "test_kat"]) == 0
    converted = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(converted[name], value) for name, value in model.state_dict().items())
    if wrapper == "upstream":
        assert push(tmp_path / "out", REPO).changed
        x = torch.randn(1, 3, 160, 160)
        assert torch.equal(timm.create_model(f"hf-hub:{REPO}", pretrained=True).eval()(x), model(x))


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("kind", ["pickle", "html", "other model", "npz"])
def test_convert_refuses(tmp_path, kind):
    path = tmp_path / ("x.npz" if kind == "npz" else "x.pth")
    if kind == "npz":
        np.savez(path, **{"embedding/kernel": np.array([Malicious()], dtype=object)})
    elif kind == "html":
        path.write_text("<html>")
    else:
        found = {"pos_embed": Malicious()} if kind == "pickle" else timm.create_model("test_vit").state_dict()
        torch.save(found, path)
    model = "kat_tiny_patch16_224" if kind == "other model" else "test_kat"
    with pytest.raises(ValueError, match=f"x.pth is not weights|does not fit {model}"):
        convert(path, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["config.json", "recipe.yaml"])
def test_convert_overwrites_nothing(tmp_path, name):
    torch.save(timm.create_model("test_kat").state_dict(), tmp_path / "x.pth")
    (tmp_path / name).write_text("of the user's own")
    with pytest.raises(ValueError, match=f"has a {name}: expected a new folder"):
        convert(tmp_path / "x.pth", "test_kat", tmp_path)
    assert (tmp_path / name).read_text() == "of the user's own" and not (tmp_path / "model.safetensors").exists()


def test_saved_models_have_labels_only_of_their_own(tmp_path):
    save_model(timm.create_model("test_kat", depth=1), tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert "label_names" not in config and config["model_args"]["depth"] == 1


def test_the_same_content_gives_the_same_bytes(tmp_path):
    model = timm.create_model("test_kat", depth=1)
    for i in range(10):
        save_model(model, tmp_path / str(i), origin=Origin(dataset="x"))
    assert len({(tmp_path / str(i) / "model.safetensors").read_bytes() for i in range(10)}) == 1
    assert load_file(tmp_path / "0" / "model.safetensors").keys() == model.state_dict().keys()
