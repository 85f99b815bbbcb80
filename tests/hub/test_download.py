"""Published weights over the Hub's protocol: `hf-hub:` names, registered tags, upstream's .pth files, bad servers."""

import gzip
import io
import json
from dataclasses import replace
from functools import cache

import pytest
import timm
import torch
from safetensors.torch import save

import kat_zoo  # noqa: F401
from kat_zoo.hub.source import open_model
from kat_zoo.models._download import WeightsError
from kat_zoo.models.kat import UPSTREAM_FILES
from kat_zoo.models.kat_of_vit import SOURCES

WRAPPED = list(zip(UPSTREAM_FILES, ("", "state_dict", "model", "model_ema", "", ""), strict=True))
PTH_REPO = "adamdad/kat_pretained"
HTML = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>" + b"\n" * 4000


@cache
def weights(architecture, **kwargs):
    """Random weights under the published names."""
    shapes = timm.create_model(architecture, device="meta", **kwargs).state_dict()
    generator = torch.Generator().manual_seed(len(shapes))
    return {name: torch.empty(like.shape).uniform_(-0.1, 0.1, generator=generator) for name, like in shapes.items()}


def config(architecture, **kwargs):
    """config.json as the published repositories have it."""
    model = timm.create_model(architecture, device="meta", **kwargs)
    keys = (
        "num_classes",
        "input_size",
        "interpolation",
        "crop_pct",
        "mean",
        "std",
        "first_conv",
        "classifier",
        "fixed_input_size",
    )
    found = {"architecture": architecture, "num_classes": model.num_classes, "num_features": model.num_features}
    found |= {"pretrained_cfg": {key: model.pretrained_cfg[key] for key in keys}}
    return json.dumps(found | ({"model_args": kwargs} if kwargs else {})).encode()


def assert_loaded(model, expected):
    loaded = model.state_dict()
    assert loaded.keys() == expected.keys()
    different = [name for name, value in expected.items() if not torch.equal(loaded[name], value)]
    assert not different


def as_pth(state_dict, key):
    buffer = io.BytesIO()
    torch.save({key: state_dict} if key else state_dict, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("revision", ["", "@v1"])
def test_hub_name(hub, revision):
    """The whole KAT-T, under the published names, by its Hub name."""
    repo = "adamdad/kat_tiny_patch16_224"
    expected = weights("kat_tiny_patch16_224")
    assert len(expected) == 200 and sum(value.numel() for value in expected.values()) == 5_718_328
    hub.add(repo, {"config.json": config("kat_tiny_patch16_224"), "model.safetensors": save(expected)})
    hub.repos[repo].refs["v1"] = hub.repos[repo].refs["main"]
    hub.add(repo, {} if not revision else {"model.safetensors": b"not the revision asked for"})
    model = timm.create_model(f"hf-hub:{repo}{revision}", pretrained=True)
    assert_loaded(model, expected)
    assert (type(model).__name__, model.pretrained_cfg["crop_pct"]) == ("KAT", 0.875)


@pytest.mark.parametrize("name", UPSTREAM_FILES)
def test_registered_tags(hub, name):
    """Every published tag asks for its own repository and file; one block deep, so that KAT-B is 36 MB."""
    architecture, tag = name.split(".")
    repo = f"adamdad/{architecture}" + (".vitft" if "vitft" in tag else "")
    expected = weights(architecture, depth=1)
    hub.add(repo, {"model.safetensors": save(expected)})
    assert_loaded(timm.create_model(name, pretrained=True, depth=1), expected)
    assert {path for _, path in hub.log} == {f"/{repo}/resolve/main/model.safetensors"}


def test_every_published_tag_is_covered():
    published = [name for name in timm.list_pretrained("kat_*") if timm.get_pretrained_cfg(name).hf_hub_id]
    assert sorted(published) == sorted([*UPSTREAM_FILES, *SOURCES])  # those of SOURCES: test_converted.py


@pytest.mark.parametrize(("name", "wrapper"), WRAPPED)
def test_upstream_pth_files(hub, name, wrapper):
    file = UPSTREAM_FILES[name]
    expected = weights(name.split(".")[0], depth=1)
    hub.add(PTH_REPO, {file: as_pth(expected, wrapper)})
    overlay = {"hf_hub_id": PTH_REPO, "hf_hub_filename": file}
    assert_loaded(timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, depth=1), expected)
    assert {path for _, path in hub.log} == {f"/{PTH_REPO}/resolve/main/{file}"}


def load():
    return timm.create_model("hf-hub:adamdad/test", pretrained=True)


def truncated(reply):
    return replace(reply, headers={**reply.headers, "Content-Length": str(len(reply.body))}, body=reply.body[:5000])


def resized(reply):
    return replace(reply, body=reply.body[:-1000])


def html(reply):
    return replace(reply, headers={**reply.headers, "Content-Type": "text/html"}, body=HTML)


def html_as_a_file(reply):
    """HTML that was uploaded as the weights: size and ETag are its own."""
    own = {"ETag": '"html"', "X-Linked-Etag": '"html"', "X-Linked-Size": str(len(HTML))}
    return replace(html(reply), headers={**reply.headers, **own})


def portal(reply):
    """The login page of a network, in place of the Hub."""
    return replace(reply, headers={"Content-Type": "text/html"}, body=HTML)


def down(reply):
    return replace(reply, status=503, body=b"")


SAYS = {
    truncated: r"received 5000 bytes|IncompleteRead\(5000 bytes",
    resized: "has size",
    html: "should be of size",
    html_as_a_file: "begins with b'<!DOCTYPE html>",
    portal: "missing the 'X-Repo-Commit' header|does not seem to be on huggingface.co",  # the newer and the older huggingface_hub
    down: "503",
}


def cached(folder):
    """Contents of the files that are cached; older versions of huggingface_hub keep beginnings, too, to go on with."""
    return [path.read_bytes() for path in folder.rglob("hub_cache/models--adamdad--test/blobs/*") if path.suffix != ".incomplete"]


@pytest.mark.parametrize("damage", SAYS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_bad_answers(hub, tmp_path, monkeypatch, file, damage):
    """The error names the file and the repository, and the next answer, if it is good, is used."""
    expected = weights("test_kat", depth=1)
    content = save(expected) if file.endswith("safetensors") else as_pth(expected, "")
    hub.add("adamdad/test", {"config.json": config("test_kat", depth=1), file: content})
    hub.damage[file] = damage
    hub.damage_head = {file} if damage in (html_as_a_file, portal, down) else set()
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between huggingface_hub's retries
    with pytest.raises(WeightsError, match=SAYS[damage]) as caught:
        load()
    assert file in str(caught.value) and "adamdad/test" in str(caught.value)
    assert cached(tmp_path) == [config("test_kat", depth=1)]
    hub.damage = {}
    assert_loaded(load(), expected)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("hf-hub:adamdad/nothing", "Repository Not Found"),
        ("hf-hub:adamdad/test@v9", "Revision Not Found"),
        ("kat_tiny_patch16_224.adamdad_in1k", "cannot download model.safetensors from .* adamdad/kat_tiny_patch16_224"),
        ("hf-hub:adamdad/test", "adamdad/test .* has no model.safetensors or pytorch_model.bin"),
    ],
)
def test_missing(hub, name, says):
    """404, and then the file is there."""
    expected = weights("test_kat", depth=1)
    hub.add("adamdad/test", {"config.json": config("test_kat", depth=1)})
    with pytest.raises(OSError, match=says):
        timm.create_model(name, pretrained=True)
    hub.add("adamdad/test", {"model.safetensors": save(expected)})
    assert_loaded(load(), expected)


NO_WEIGHTS = {
    "byte order mark": b"\xef\xbb\xbf" + HTML,
    "title": HTML.replace(b"<body>", "<title>Anmeldung f\u00fcr G\u00e4ste</title><body>".encode()),
    "gzip": gzip.compress(HTML),
    "zeros": bytes(5000),
    "nothing": b"",
    "cut off": None,
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_files_that_are_no_weights(hub, tmp_path, file, name):
    """Size and ETag are right, so that the download succeeds."""
    expected = weights("test_kat", depth=1)
    good = save(expected) if file.endswith("safetensors") else as_pth(expected, "")
    bad = good[:-1000] if NO_WEIGHTS[name] is None else NO_WEIGHTS[name]
    hub.add("adamdad/test", {"config.json": config("test_kat", depth=1), file: bad})
    with pytest.raises(WeightsError, match=f"^{file} of the Hub repository adamdad/test is .* removed from the cache"):
        load()
    assert cached(tmp_path) == [config("test_kat", depth=1)]
    hub.add("adamdad/test", {file: good})
    assert_loaded(load(), expected)


@pytest.mark.parametrize("bad", [HTML, b"\xff\xfe", b"[]", b""], ids=["html", "bytes", "list", "nothing"])
def test_a_config_that_is_none(hub, bad):
    expected = weights("test_kat", depth=1)
    hub.add("adamdad/test", {"config.json": bad, "model.safetensors": save(expected)})
    with pytest.raises(WeightsError, match="config.json of the Hub repository adamdad/test is not a JSON object"):
        open_model("hf-hub:adamdad/test")
    hub.add("adamdad/test", {"config.json": config("test_kat", depth=1)})
    assert_loaded(open_model("hf-hub:adamdad/test").model, expected)


def test_other_models_check_their_weights_too(hub):
    hub.add("adamdad/test", {"config.json": config("kat_mixer_pico_patch4_28"), "model.safetensors": HTML})
    with pytest.raises(WeightsError, match="model.safetensors of the Hub repository adamdad/test"):
        load()


def test_other_sources_do_not_ask_the_hub(hub, tmp_path):
    expected = weights("test_kat", depth=1)
    (tmp_path / "weights.safetensors").write_bytes(save(expected))
    overlay = {"file": str(tmp_path / "weights.safetensors"), "hf_hub_id": "adamdad/test"}
    assert_loaded(timm.create_model("test_kat", pretrained=True, pretrained_cfg_overlay=overlay, depth=1), expected)
    timm.create_model("kat_tiny_patch16_224.adamdad_in1k", depth=1)
    assert not hub.log
