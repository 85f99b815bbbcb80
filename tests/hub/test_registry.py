"""kat-zoo list and the model cards: what they say is what the models, the registry and results.json hold."""

import json
from pathlib import Path

import pytest
import timm
from huggingface_hub import ModelCard

from kat_zoo.cli.main import main
from kat_zoo.hub import cards
from kat_zoo.hub import facts as card_facts
from kat_zoo.hub import registry as zoo
from kat_zoo.models.kat_of_vit import SOURCES

CARDS = Path(__file__).parent.parent.parent / "model_cards"


@pytest.mark.parametrize(
    ("name", "params", "low", "high", "activations"),
    [
        ("kat_tiny_patch16_224.adamdad_in1k", 5_718_328, 1.08, 1.13, 4.1),
        ("kat_small_patch16_224.adamdad_in1k", 22_051_576, 4.25, 4.35, 8.2),
        ("kat_base_patch16_224.adamdad_in1k", 86_568_568, 16.87, 17.1, 16.5),
    ],
)
def test_sizes_are_the_papers(name, params, low, high, activations):
    size = zoo.entry(name).size
    assert size.params == params and low <= size.gmacs <= high
    assert size.activations / 1e6 == pytest.approx(activations, abs=0.05)


@pytest.mark.parametrize("order", [(5, 4), (3, 2)])
def test_counts_by_hand(order):
    """test_kat at 160 px: 101 tokens of width 64, 6 blocks, hidden width 192."""
    size = zoo.measure(timm.create_model("test_kat", device="meta", img_size=160, order=order), (3, 160, 160))
    n, d = 101, 64
    rationals = (sum(order) + 1) * n * (d + 3 * d)
    assert round(size.gmacs * 1e9) == 100 * 768 * d + 6 * (n * (4 * d * d + 6 * d * d) + rationals) + d * 1000
    assert round(size.attention_gmacs * 1e9) == 6 * 2 * n * n * d
    assert size.activations == 100 * d + 6 * n * (3 * d + d + 3 * d + d) + 1000


def test_list(capsys):
    assert main(["list", "--format", "json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    registered = {m for m in timm.list_models() if timm.model_entrypoint(m).__module__.startswith("kat_zoo.")}
    assert {name.split(".")[0] for name in rows} == {name for name in registered if not name.startswith("test_")}
    base = rows["kat_base_patch16_224.adamdad_vitft_in1k"]
    assert base["weights"] == "hub:adamdad/kat_base_patch16_224.vitft" and base["license"] == "mit"
    assert [(r["top1"], r["source"]) for r in base["results"]] == [(82.8, "authors")]
    assert all(row["results"] == [] for row in rows.values() if row["weights"] == "none")


def test_filters_and_formats(capsys):
    assert main(["list", "kat_tiny*vitft*", "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "| 75.7 imagenet-1k | authors | mit |" in lines[2]
    assert main(["list", "kat_tiny_patch16_224"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["list", "nothing"]) == 2
    assert "no model matches 'nothing'" in capsys.readouterr().err


def test_every_result_has_a_model_a_source_and_a_place():
    for name, results in zoo.load_results().items():
        assert name in zoo.names()
        for result in results:
            assert result.dataset in card_facts.DATASETS and 0 < result.top1 < 100
            assert (result.source == "authors" and result.url) or (result.source == "ours" and result.command)


def test_cards_are_current():
    """Fails when a model, its counts, its results or the renderer has changed: run `kat-zoo cards`."""
    assert cards.stale(CARDS) == []


def test_the_card_of_vit_kan_says_what_the_papers_table_counts():
    text = cards.render(zoo.entry("vit_kan_tiny_patch16_224"))
    assert "12.8M" in text and "**Parameters (M):** 9.25" in text and "liu2025kan" in text
    assert "dosovitskiy2021image" in cards.render(zoo.entry("vit_mlp_tiny_patch16_224"))


def test_a_stale_card_is_noticed(tmp_path, capsys):
    assert main(["cards", "--out", str(tmp_path)]) == 0
    path = tmp_path / "kat_tiny_patch16_224.adamdad_in1k.md"
    path.write_text(path.read_text().replace("74.6", "76.4"))
    (tmp_path / "gone.md").write_text(path.read_text())
    (tmp_path / "README.md").write_text("# Cards\n\nA page of the user's own, about kat-zoo.\n")
    assert main(["cards", "--out", str(tmp_path), "--check"]) == 2
    assert f"stale model cards in {tmp_path}: gone.md, {path.name}" in capsys.readouterr().err


@pytest.mark.parametrize("name", cards.published())
def test_card_metadata(name):
    """huggingface_hub reads the front matter, and the sources are kept apart."""
    data = ModelCard((CARDS / f"{name}.md").read_text()).data
    results = zoo.load_results().get(name, ())
    vit = timm.get_pretrained_cfg(SOURCES[name]) if name in SOURCES else None
    license = vit.license if vit else "mit"
    task = "image-feature-extraction" if vit and vit.num_classes != 1000 else "image-classification"
    assert (data.license, data.library_name, data.pipeline_tag) == (license, "timm", task)
    assert "transformers" not in data.tags and data.model_name == name and bool(data.datasets) == bool(results)
    for told, known in zip(data.eval_results or (), results, strict=True):
        assert (told.metric_value, told.source_url) == (known.top1, known.url or None)
        assert ("not measured by kat_zoo" in (told.source_name or "")) == (known.source == "authors")
