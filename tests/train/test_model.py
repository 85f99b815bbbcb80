import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from kat_zoo.cli.main import main
from kat_zoo.train.classification.model import build_model
from kat_zoo.train.classification.recipe import ModelConfig
from kat_zoo.train.core.config import RECIPES, OptimizerConfig
from kat_zoo.train.core.optim import RATIONALS, create_optimizer
from kat_zoo.train.tasks import train_main


def test_unknown_model_lists_similar_names():
    with pytest.raises(ValueError, match="kat_base_patch16_224"):
        build_model(ModelConfig(name="kat_huge"), 10)


@pytest.mark.parametrize("settings", [{"checkpoint": "no/such.safetensors"}, {"init_from": "test_vit@no/such.safetensors"}])
def test_a_missing_checkpoint_is_named(settings):
    with pytest.raises(FileNotFoundError, match="checkpoint no/such.safetensors: no such file"):
        build_model(ModelConfig(name="test_kat", **settings), 7)


@pytest.mark.parametrize("name, damage", [("a.safetensors", "is empty"), ("a.pth", "is not weights; it begins with b'<html>'")])
def test_a_damaged_checkpoint_is_named(tmp_path, name, damage):
    (tmp_path / name).write_text("<html>" if "begins" in damage else "")
    with pytest.raises(ValueError, match=f"checkpoint .*{name} {damage}"):
        build_model(ModelConfig(name="test_kat", checkpoint=str(tmp_path / name)), 10)


@pytest.mark.parametrize("train_only, trained", [("rationals", RATIONALS), ("head", ("head.weight", "head.bias"))])
def test_train_only_moves_nothing_else(train_only, trained):
    model = build_model(ModelConfig(name="test_kat", train_only=train_only), 7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = create_optimizer(model, OptimizerConfig(lr=0.1))
    model(torch.randn(2, 3, 160, 160)).square().sum().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and moved <= {name for name in before if name.endswith(trained)}
    for patterns in ("no.such", "head,blocks.11.*"):
        with pytest.raises(ValueError, match=f"model.train_only='{patterns}': '{patterns.rpartition(',')[2]}' matches no parameter of KAT"):
            build_model(ModelConfig(name="test_kat", train_only=patterns), 7)


def test_init_from_a_vit_keeps_its_function(tmp_path):
    vit = timm.create_model("test_vit", num_classes=7).eval()
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    config = ModelConfig(name="test_kat", init_from=f"test_vit@{tmp_path / 'vit.safetensors'}")
    kat = build_model(config, 7).eval()
    x = torch.randn(4, 3, 160, 160)
    with torch.no_grad():
        assert (kat(x) - vit(x)).norm() / vit(x).norm() < 0.15  # no calibration images; a fresh KAT is at 1.4
    kat = build_model(config, 5, adapt=True)  # fine-tuning for other classes keeps all but the head
    assert kat.head.out_features == 5 and torch.equal(kat.pos_embed, vit.pos_embed)
    with pytest.raises(ValueError, match="shape of the model"):
        build_model(ModelConfig(name="kat_tiny_patch16_224", init_from=config.init_from), 7)


def write_npz(vit, path):
    """A ViT as Google wrote them: kernels of (in, out), the heads apart."""
    weights = {name: value.numpy() for name, value in vit.state_dict().items()}
    dim, heads = vit.embed_dim, vit.blocks[0].attn.num_heads
    arrays = {
        "cls": weights["cls_token"],
        "embedding/kernel": weights["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": weights["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": weights["pos_embed"],
        "Transformer/encoder_norm/scale": weights["norm.weight"],
        "Transformer/encoder_norm/bias": weights["norm.bias"],
        "head/kernel": weights["head.weight"].T,
        "head/bias": weights["head.bias"],
    }
    for i in range(len(vit.blocks)):
        theirs, ours = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for name, norm in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            arrays |= {f"{theirs}{name}/scale": weights[f"{ours}{norm}.weight"], f"{theirs}{name}/bias": weights[f"{ours}{norm}.bias"]}
        qkv = weights[f"{ours}attn.qkv.weight"].reshape(3, heads, dim // heads, dim)
        biases = weights[f"{ours}attn.qkv.bias"].reshape(3, heads, dim // heads)
        for name, kernel, bias in zip(("query", "key", "value"), qkv, biases, strict=True):
            arrays |= {f"{attention}{name}/kernel": kernel.transpose(2, 0, 1), f"{attention}{name}/bias": bias}
        arrays[f"{attention}out/kernel"] = weights[f"{ours}attn.proj.weight"].T.reshape(heads, dim // heads, dim)
        arrays[f"{attention}out/bias"] = weights[f"{ours}attn.proj.bias"]
        for j, name in enumerate(("fc1", "fc2")):
            arrays[f"{theirs}MlpBlock_3/Dense_{j}/kernel"] = weights[f"{ours}mlp.{name}.weight"].T
            arrays[f"{theirs}MlpBlock_3/Dense_{j}/bias"] = weights[f"{ours}mlp.{name}.bias"]
    np.savez(path, **arrays)


def test_init_from_googles_npz(tmp_path, caplog):
    name, shape = "vit_tiny_patch16_224", {"img_size": 32, "depth": 2}
    torch.manual_seed(0)
    vit = timm.create_model(name, num_classes=7, **shape)
    write_npz(vit, tmp_path / "vit.npz")
    config = ModelConfig(name, shape, checkpoint=str(tmp_path / "vit.npz"))
    assert all(map(torch.equal, build_model(config, 7).parameters(), vit.parameters())) and not caplog.text
    tuned = build_model(config, 5, adapt=True)
    assert tuned.head.out_features == 5 and torch.equal(tuned.blocks[1].mlp.fc2.weight, vit.blocks[1].mlp.fc2.weight)
    assert "vit.npz knows 7 classes, the data has 5: the head is new" in caplog.text


@pytest.mark.parametrize("decay, scale", [(True, 1.0), (False, 1.0), (True, 0.1), (False, 0.5)])
def test_rationals_decay_and_learn_as_the_recipe_says(decay, scale):
    model = build_model(ModelConfig(name="test_kat"), 7)
    config = OptimizerConfig(lr=1.0, decay_rationals=decay, rational_lr_scale=scale, layer_decay=0.5)
    optimizer = create_optimizer(model, config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)]: (g["weight_decay"], g["lr_scale"]) for g in optimizer.param_groups for p in g["params"]}
    assert len(found) == len(names)
    for name, (weight_decay, lr_scale) in found.items():
        twin = found[name.rsplit(".", 2)[0] + ".fc1.weight"] if name.endswith(RATIONALS) else (0.05, lr_scale)
        if name.endswith(RATIONALS):
            assert (weight_decay, lr_scale) == (0.05 * decay, pytest.approx(twin[1] * scale))
        elif name.endswith("fc1.weight"):
            assert weight_decay == 0.05


@pytest.mark.parametrize("name", ["muon", "nadamuon"])
def test_muon_leaves_rationals_to_its_adamw(name):
    model = build_model(ModelConfig(name="test_kat"), 7)
    optimizer = create_optimizer(model, OptimizerConfig(name=name, lr=0.02))
    model(torch.randn(2, *model.pretrained_cfg["input_size"])).square().sum().backward()
    optimizer.step()
    used = {name: optimizer.state[p]["use_muon"] for name, p in model.named_parameters()}
    assert used["blocks.0.mlp.fc1.weight"] and not any(used[name] for name in used if name.endswith(RATIONALS))


def recipe_of(path):
    slow = () if "pico" in path.stem or path.stem == "kat_tiny_patch4_32_cifar10" else pytest.mark.slow
    return pytest.param(path, marks=slow, id=path.stem)


@pytest.mark.parametrize("path", [recipe_of(path) for path in sorted(RECIPES.glob("*.yaml"))])
def test_every_recipe_can_be_rehearsed(path, capsys):
    recipe = yaml.safe_load(path.read_text())
    # The folder of a teacher's run is not there before that has been trained.
    without = ["--distill.teacher", "null"] if "/" in recipe.get("distill", {}).get("teacher", "") else []
    assert train_main(["--config", str(path), "--dry-run", *without]) == 0
    text, model = capsys.readouterr().out, recipe["model"]
    assert model.get("backbone", model.get("name")) in text and "gradient norm" in text and "nan" not in text
    header = path.read_text().split("output:")[0]
    assert "kat-zoo train --config" in header or "accelerate launch" in header


@pytest.mark.parametrize("name, lr", [("adamw", 3e-3), ("lamb", 1e-2), ("lion", 1e-3), ("muon", 1e-2)])
def test_optimizers_of_timm_train_a_kat(name, lr):
    torch.manual_seed(0)
    model = build_model(ModelConfig(name="kat_pico_patch4_28", kwargs={"depth": 1, "embed_dim": 24}), 4)
    optimizer = create_optimizer(model, OptimizerConfig(name=name, lr=lr, decay_rationals=False, layer_decay=0.9))
    x, y = torch.randn(16, 1, 28, 28), torch.arange(16) % 4
    before, losses = {name: p.detach().clone() for name, p in model.named_parameters()}, []
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_wrong_arguments_of_a_model_are_named():
    for kwargs, message in (
        ({"depht": 2}, "model.kwargs=.*: kat_pico_patch4_28 has no argument depht; did you mean depth"),
        ({"img_size": "28"}, "img_size='28': expected an integer of at least 1, or"),
    ):
        with pytest.raises(ValueError, match=message):
            build_model(ModelConfig(name="kat_pico_patch4_28", kwargs=kwargs), 10)


PICO = ["--model.name", "kat_pico_patch4_28"]
TINY = ["--model.name", "kat_tiny_patch16_224"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--model.name", "kat_tiny_patch16_224.none"],
            "model.name='kat_tiny_patch16_224.none' with an unknown tag: expected one of kat_tiny_patch16_224.",
        ),
        (
            [*PICO, "--model.init_from", "vit_tiny_patch16_224.none"],
            "model.init_from='vit_tiny_patch16_224.none' with an unknown tag: expected one of vit_tiny",
        ),
        ([*PICO, "--model.init_from", "none"], "model.init_from 'none' is not a timm model"),
        ([*PICO, "--model.init_from", "karat_tiny_g3b_patch16_224"], "model.init_from='karat_tiny_g3b_patch16_224': expected NAME@FILE"),
        (["--model.name", "karat_tiny_g3b_patch16_224", "--model.pretrained", "true"], "model.pretrained=True: expected false, for there"),
        ([*TINY, "--data.mean", "[0.5, 0.5]"], "data.mean=[0.5, 0.5]: expected 3 number(s) for each, as the model takes 3 channel(s)"),
        ([*TINY, "--data.std", "[1, 1, 1, 1]"], "data.std=[1.0, 1.0, 1.0, 1.0]: expected 3 number(s) for each"),
        ([*PICO, "--model.kwargs", "{embed_dim: 25}"], "model.kwargs={'embed_dim': 25}: expected arguments of kat_pico_patch4_28 (Asserti"),
        ([*PICO, "--model.kwargs", "{depth: -1}"], "model.kwargs={'depth': -1}: expected arguments of kat_pico_patch4_28 (RuntimeError: "),
        ([*PICO, "--model.kwargs", "{num_heads: 0}"], "model.kwargs={'num_heads': 0}: expected arguments of kat_pico_patch4_28 (ZeroDiv"),
        ([*PICO, "--model.kwargs", "{act_layer: x}"], "model.kwargs={'act_layer': 'x'}: act_layer='x': expected None"),
        (
            ["--model.name", "resnet18", "--model.kwargs", "{norm_layer: x}"],
            "model.kwargs={'norm_layer': 'x'}: expected arguments of resnet",
        ),
        ([*PICO, "--model.kwargs", "{drop_path_rate: 2}"], "model.kwargs.drop_path_rate=2: expected a number in [0, 1)"),
        (
            ["--task", "detection", "--model.backbone", "kat_tiny_patch16_224.none"],
            "model.backbone='kat_tiny_patch16_224.none' with an unknown tag: expected",
        ),
        (
            ["--task", "segmentation", "--model.backbone", "karat_tiny_g3b_patch16_224", "--model.pretrained", "true"],
            "model.pretrained=True: expected false, for there are no published weights of karat_tiny_g3b_patch16_224",
        ),
        (
            ["--task", "segmentation", "--model.backbone", "kat_pico_patch4_28", "--model.backbone_args", "{embed_dim: 25}"],
            "model.backbone_args={'embed_dim': 25}: expected arguments of upernet on kat_pico_patch4_28 (AssertionError: dim should",
        ),
        (["--task", "detection", "--model.backbone_args", "{drop_path_rate: 1}"], "model.backbone_args.drop_path_rate=1: expected a"),
    ],
)
def test_a_model_that_is_refused_is_one_line_with_its_setting(arguments, expected, data_root, capsys):
    root = [] if "--task" in arguments else ["--data.root", data_root]
    assert main(["train", *arguments, *root, "--data.batch_size", "4", "--output", "x", "--dry-run"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert expected in line


def test_a_model_that_is_refused_is_so_by_the_run_and_by_the_plan(data_root, tmp_path, capsys):
    data = ["--data.root", data_root, "--data.batch_size", "4"]
    for arguments, expected in (
        (
            [*PICO, "--model.init_from", "vit_tiny_patch16_224.none"],
            "model.init_from='vit_tiny_patch16_224.none' with an unknown tag: expected one of vit_tiny",
        ),
        ([*PICO, "--model.kwargs", "{depth: -1}"], "model.kwargs={'depth': -1}: expected arguments of kat_pico_patch4_28 (RuntimeError: "),
    ):
        for command in (["plan", "--gpus", "1"], ["train", "--output", str(tmp_path / "run")]):
            assert main([*command, *arguments, *data]) == 2
            assert expected in capsys.readouterr().err and not (tmp_path / "run").exists()
