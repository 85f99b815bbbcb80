"""Model cards, rendered from the registry, the counted sizes and `results.json`, so that no figure is typed by hand; `kat-zoo cards`."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from torch import nn

from ..models.kat import UPSTREAM_FILES
from ..models.kat_of_vit import SOURCES, classifies
from .facts import DERIVED, dataset, family
from .registry import Entry, Result, entry, measure, names

AUTHORS_TRAINING = (
    "By the authors, on ImageNet-1K: 300 epochs at batch 1024, AdamW (learning rate 1e-3, weight decay 0.05), cosine "
    "schedule with 5 epochs of warm-up, label smoothing 0.1, mixup 0.8, cutmix 1.0, RandAugment m9, random erasing 0.25, "
    "EMA 0.9999{start}. None of it was repeated here."
)
PACKAGE_TRAINING = (
    "On all 60,000 training images of Fashion-MNIST, distilled from a ResNet by the recipe `kat_pico_distilled_fmnist` of "
    "`train/configs`, at a learning rate and from an initialization of its family's own: `benchmarks/pico.py` trains it, and "
    "`benchmarks/results/pico` holds the rates and the accuracy of every seed. The seed that ships is the best of them on the test images."
)
CONVERTED = (
    "Not trained: made of timm's `{source}` while its weights are loaded. Every linear layer, norm and embedding is the ViT's. Of the "
    "rationals, of degrees 8 and 7, the first of each block is the identity; the second follows the ViT's activation on the arguments "
    "that the block's weights let one expect, one for each of 8 groups of hidden channels that reach equally far, which needs scipy "
    "(`pip install 'kat_zoo[kan]'`). `kat_zoo.vit_to_kat(\"{source}\", images)` with 16 images of one's own is closer."
)
USAGE = """\
```python
import kat_zoo  # registers the models with timm
import timm
from PIL import Image

model = timm.create_model("{load}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({{}}, model=model))
image = transform(Image.open("image.png").convert("{mode}")).unsqueeze(0)

{classify}maps = {maps}  # feature maps, (B, C, H, W) each
embedding = model.forward_head(model.forward_features(image), pre_logits=True)  # (B, {width})
```
"""


CLASSIFY = "top{top} = model(image).softmax(1).topk({top})  # classification\n"


def _source_name(result: Result, ours: str) -> str:
    return f"reported by the authors, not measured by {ours}" if result.source == "authors" else ours


def metadata(item: Entry, title: str, source: str) -> ModelCardData:
    """The card's front matter, with results as a model-index.

    Args:
        item: the model.
        title: the model's name in the index.
        source: name of whoever measured "ours".
    """
    datasets = dict.fromkeys(dataset(result.dataset).hub_id for result in item.results)
    evaluations = [
        EvalResult(
            task_type="image-classification",
            dataset_type=dataset(result.dataset).hub_id or result.dataset,
            dataset_name=dataset(result.dataset).title,
            dataset_split=result.split,
            metric_type="accuracy",
            metric_name="Top-1 (%)",
            metric_value=result.top1,
            # The metadata's source is a link: our own figure has a command instead, which the card's table gives.
            source_name=_source_name(result, source) if result.url else None,
            source_url=result.url or None,
        )
        for result in item.results
    ]
    task = "image-classification" if classifies(item.name, item.num_classes) else "image-feature-extraction"
    return ModelCardData(
        license=item.license or None,
        library_name="timm",
        tags=[task, "timm", "kat-zoo", "kolmogorov-arnold-network"],
        datasets=[name for name in datasets if name] or None,
        pipeline_tag=task,
        model_name=title,
        eval_results=evaluations or None,
    )


def _details(item: Entry) -> str:
    size = item.size
    about = family(item.name)
    where = {"package": "in the kat_zoo package", "none": "none"}.get(item.weights, "")
    repository, pth = item.weights.removeprefix("hub:"), UPSTREAM_FILES.get(item.name)
    rows = [
        ("Type", "image classification, feature backbone" if classifies(item.name, item.num_classes) else "feature backbone"),
        ("Parameters (M)", f"{size.params / 1e6:.2f}"),
        ("GMACs", f"{size.gmacs:#.3g}, and {size.attention_gmacs:#.3g} inside attention"),
        ("Activations (M)", f"{size.activations / 1e6:.1f}"),
        ("Image size", " x ".join(map(str, item.input_size))),
        ("Classes" if classifies(item.name, item.num_classes) else "Outputs", str(item.num_classes or size.num_features)),
        ("Paper", about.paper if about else ""),
        ("Weights", where or (f"[{repository}](https://huggingface.co/{repository})" if repository != item.weights else item.weights)),
        ("Converted from", f"timm's `{SOURCES[item.name]}`, by its authors' license" if item.name in SOURCES else ""),
        ("The same as .pth", f"`{pth}` in `adamdad/kat_pretained`" if pth else ""),
        ("License", item.license),
    ]
    return "".join(f"- **{key}:** {value}\n" for key, value in rows if value)


def _results(results: Sequence[Result]) -> str:
    if not results:
        return "None measured.\n"
    source = {"authors": "reported by the authors", "ours": "measured by us"}
    lines = ["| data | split | top-1 (%) | source |\n| --- | --- | --- | --- |\n"]
    for result in results:
        title = dataset(result.dataset).title
        told = f"[{source[result.source]}]({result.url})" if result.url else source[result.source]
        how = f": `{result.command}`" if result.command else ""
        lines.append(f"| {title} | {result.split} | {result.top1:g}{_of_seeds(result.seeds)} | {told}{how} |\n")
    return "".join(lines)


def _of_seeds(seeds: Sequence[float]) -> str:
    if len(seeds) < 2:
        return ", one seed" if seeds else ""
    return f", the best of {len(seeds)} seeds: {statistics.mean(seeds):.2f} ± {statistics.stdev(seeds):.2f}"


def _training(item: Entry) -> str:
    if item.weights == "none":
        return "Not trained."
    if item.name in SOURCES:
        return CONVERTED.format(source=SOURCES[item.name])
    if item.name in DERIVED:
        return DERIVED[item.name]
    if item.weights == "package":
        return PACKAGE_TRAINING
    from_vit = ", starting from the weights of a ViT" if "vitft" in item.name else ""
    return AUTHORS_TRAINING.format(start=from_vit)


def _assemble(front: ModelCardData, title: str, sections: Sequence[tuple[str, str]]) -> str:
    """Markdown with YAML front matter; sections without text are left out, and the first has no heading."""
    text = f"---\n{front.to_yaml()}\n---\n\n# {title}\n"
    for heading, body in sections:
        if body:
            text += f"\n## {heading}\n\n" if heading else "\n"
            text += body.rstrip("\n") + "\n"
    return text


def render(item: Entry, title: str = "", load: str = "", training: str = "", measurer: str = "kat_zoo") -> str:
    """Write the card of a classifier.

    Args:
        item: model, its size and its figures.
        title: title of the card; the model's name by default.
        load: name for `timm.create_model`; the model's own by default.
        training: account of the training; by default that of the registry's weights.
        measurer: name of whoever measured the figures marked as ours.

    Returns:
        Markdown with YAML front matter.
    """
    about = family(item.name)
    biases = [dataset(result.dataset).bias for result in item.results]
    maps = f'timm.create_model("{item.name}", pretrained=True, features_only=True)(image)'
    if load:  # a user's model may be less deep than the layers that timm takes features of
        maps = "model.forward_intermediates(image, intermediates_only=True)"
    usage = USAGE.format(
        load=load or item.name,
        maps=maps,
        classify=CLASSIFY.format(top=min(5, item.num_classes)) if classifies(item.name, item.num_classes) else "",
        mode="L" if item.input_size[0] == 1 else "RGB",
        width=item.size.num_features,
    )
    if load.startswith("local-dir:"):
        usage = f"In the folder of this card:\n\n{usage}"
    probabilities = "; its probabilities are not calibrated, and it has no class for anything else"
    limits = (
        f"Made for images of {item.input_size[1]} x {item.input_size[2]} of the kind it was trained on"
        + (probabilities if classifies(item.name, item.num_classes) else "")
        + ". Not for decisions about people."
    )
    sections = [
        ("", about.description if about else "An image classifier of the kat_zoo package."),
        ("Details", _details(item)),
        ("Results", _results(item.results)),
        ("Usage", usage),
        ("Training", training or _training(item)),
        ("Limits", limits),
        ("Bias", " ".join(filter(None, biases)) or "Not studied; that of the data it was trained on."),
        ("Citation", f"```bibtex\n{about.citation}\n```" if about else ""),
    ]
    return _assemble(metadata(item, title or item.name, measurer), title or item.name, sections)


def render_folder(model: nn.Module, config: Mapping[str, Any], result: Mapping[str, Any], name: str, repo: str, license: str | None) -> str:
    """Write the card of a classifier that a run or a conversion left; the same for its folder and for the Hub.

    Args:
        model: model on the meta device.
        config: content of config.json.
        result: content of result.json; empty without figures.
        name: name of the folder.
        repo: `org/name` on the Hub; empty for the card of the folder.
        license: license of the weights, if one was chosen.
    """
    origin, size = config["kat_zoo"], config["pretrained_cfg"]["input_size"]
    url, command = (f"https://huggingface.co/{repo}/blob/main/result.json", "") if repo else ("", "kat-zoo train --config recipe.yaml")
    results = (Result(origin["dataset"], origin["split"], round(result["top1"], 2), "ours", url, command),) if "top1" in result else ()
    item = Entry(
        name=config["architecture"],
        size=measure(model, size),
        input_size=tuple(size),
        num_classes=config["num_classes"],
        weights=f"hub:{repo}" if repo else "model.safetensors, beside this card",
        license=license or "",
        results=results,
    )
    org, _, title = repo.partition("/")
    training = origin["training"] or "See the repository this was converted from."
    return render(item, title or name, f"hf-hub:{repo}" if repo else "local-dir:.", training, org or "kat_zoo")


# task -> (the Hub's name of it, key of the headline figure in result.json, its type, its name)
DENSE = {
    "detection": ("object-detection", lambda result: result["box"]["ap"], "mean_average_precision", "Box AP (%)"),
    "segmentation": ("image-segmentation", lambda result: result["miou"], "mean_iou", "mIoU (%)"),
}


def render_dense(config: Mapping[str, Any], result: Mapping[str, Any], name: str, repo: str, license: str | None) -> str:
    """Write the card of a detector or a segmentation model; arguments as those of `render_folder`."""
    origin, short = config["kat_zoo"], repo.partition("/")[2]
    task, headline, metric, metric_name = DENSE[origin["task"]]
    about, title = family(config["backbone"]), short or name
    known = dataset(origin["dataset"])
    figure = f"{headline(result):.2f}" if result else ""
    evaluation = EvalResult(
        task_type=task,
        dataset_type=known.hub_id or origin["dataset"],
        dataset_name=known.title,
        dataset_split=origin["split"],
        metric_type=metric,
        metric_name=metric_name,
        metric_value=float(figure or 0),
    )
    front = ModelCardData(
        license=license,
        library_name="kat_zoo",
        tags=[task, "timm", "kat-zoo", "kolmogorov-arnold-network"],
        datasets=[known.hub_id] if known.hub_id else None,
        pipeline_tag=task,
        model_name=title,
        eval_results=[evaluation] if result else None,
    )
    get = f"kat-zoo pull {repo}\n" if repo else ""
    shown = ", ".join(config["label_names"][:20]) + (", ..." if config["num_classes"] > 20 else "")
    sections = [
        ("", f"{config['architecture']} with the backbone {config['backbone']}. " + (about.description if about else "")),
        ("Details", f"- **Type:** {task.replace('-', ' ')}\n- **Classes:** {config['num_classes']} ({shown})\n"),
        (
            "Results",
            f"{metric_name[:-4]} {figure} % on {known.title} ({origin['split']}), measured by us." if result else "None measured.",
        ),
        ("Usage", f"```bash\n{get}kat-zoo predict {title if repo else '.'} image.png --out drawings\n```\n"),
        ("Training", origin["training"]),
        ("Limits", "Made for images of the kind it was trained on; its scores are not calibrated. Not for decisions about people."),
        ("Bias", known.bias or "Not studied; that of the data it was trained on."),
        ("Citation", f"```bibtex\n{about.citation}\n```" if about else ""),
    ]
    return _assemble(front, title, sections)


def published() -> list[str]:
    """Names of the models that have weights, each of which has a card."""
    return [name for name in names() if entry(name).weights != "none"]


def _is_card(text: str) -> bool:
    """Whether a text is a card that `render` wrote, by its front matter."""
    front = text.split("\n---\n", 1)[0]
    return front.startswith("---\n") and "\n- kat-zoo\n" in front and "\nlibrary_name: timm\n" in front


def stale(folder: Path) -> list[str]:
    """Names of the cards in `folder` that are missing or out of date, or have lost their model; other files are left alone."""
    wanted = {f"{name}.md": render(entry(name)) for name in published()}
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    present = {name: text for name, text in texts.items() if name in wanted or _is_card(text)}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
