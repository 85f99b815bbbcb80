"""benchmarks/dinov2.py: a backbone's weights from an ONNX file, in timm's names, with rows of q, k and v in its order."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def dinov2(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import dinov2

    yield dinov2
    del sys.modules["dinov2"]


def test_names_and_order_of_rows(dinov2):
    rng = np.random.default_rng(0)
    layer = "backbone.encoder.layer.0"
    values = {
        "backbone.embeddings.cls_token": rng.normal(size=(1, 1, 4)),
        "onnx::Concat_1": rng.normal(size=(1, 1, 4)),
        "onnx::Reshape_2": rng.normal(size=(1, 9, 4)),
        "backbone.layernorm.weight": rng.normal(size=4),
        f"{layer}.layer_scale1.lambda1": rng.normal(size=4),
        **{f"{layer}.attention.attention.{part}.bias": rng.normal(size=4) for part in ("query", "key", "value")},
        "decoder.weight": rng.normal(size=4),
    }
    nodes = [
        helper.make_node("Reshape", ["onnx::Reshape_2"], ["r"], name="/backbone/embeddings/Reshape_1"),
        helper.make_node("Concat", ["onnx::Concat_1", "r"], ["p"], name="/backbone/embeddings/Concat_3", axis=1),
    ]
    for i, part in enumerate(("attention/attention/query", "attention/attention/key", "attention/attention/value", "mlp/fc1")):
        values[f"onnx::MatMul_{i}"] = rng.normal(size=(4, 16 if "fc1" in part else 4))
        nodes.append(helper.make_node("MatMul", ["p", f"onnx::MatMul_{i}"], [part], name=f"/backbone/encoder/layer.0/{part}/MatMul"))
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    state = dinov2.read_backbone(helper.make_model(helper.make_graph(nodes, "graph", [], [], tensors)))
    assert set(state) == {
        "cls_token", "pos_embed", "norm.weight", "blocks.0.ls1.gamma", "blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias",
        "blocks.0.mlp.fc1.weight",
    }  # fmt: skip
    position = np.concatenate([values["onnx::Concat_1"], values["onnx::Reshape_2"]], axis=1)
    assert torch.equal(state["pos_embed"], torch.from_numpy(position))
    rows = np.concatenate([values[f"onnx::MatMul_{i}"].T for i in range(3)])
    assert torch.equal(state["blocks.0.attn.qkv.weight"], torch.from_numpy(rows))
    assert torch.equal(state["blocks.0.mlp.fc1.weight"], torch.from_numpy(values["onnx::MatMul_3"].T.copy()))


def test_a_missing_package_is_named(dinov2, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no wheel of scikit_image; see the pip command"):
        dinov2.load_photographs(tmp_path, ["skimage/data/cat.png"])
