"""Model cards, rendered from the registry, the counts and `results.json`: never typed twice; `kat-zoo cards`."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from .._arguments import ArgumentParser
from ..models.kat import UPSTREAM_FILES
from .facts import dataset, family
from .registry import Entry, Result, entry, names

AUTHORS_TRAINING = (
    "By the authors, on ImageNet-1K: 300 epochs at batch 1024, AdamW (learning rate 1e-3, weight decay 0.05), cosine "
    "schedule with 5 epochs of warm-up, label smoothing 0.1, mixup 0.8, cutmix 1.0, RandAugment m9, random erasing 0.25, "
    "EMA 0.9999{start}. None of it was repeated here."
)
USAGE = """\
```python
import kat_zoo  # registers the models with timm
import timm
from PIL import Image

model = timm.create_model("{load}", {arguments}).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({{}}, model=model))
image = transform(Image.open("image.png").convert("{mode}")).unsqueeze(0)

top5 = model(image).softmax(1).topk(5)  # classification
maps = {maps}(image{intermediates})  # feature maps, (B, C, H, W) each
embedding = model.forward_head(model.forward_features(image), pre_logits=True)  # (B, {width})
```
"""


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
    return ModelCardData(
        license=item.license or None,
        library_name="timm",
        tags=["image-classification", "timm", "kat-zoo", "kolmogorov-arnold-network"],
        datasets=[name for name in datasets if name] or None,
        pipeline_tag="image-classification",
        model_name=title,
        eval_results=evaluations or None,
    )


def _details(item: Entry) -> str:
    size = item.size
    about = family(item.name)
    where = {"package": "in the kat_zoo package", "none": "none"}.get(item.weights, "")
    repository, pth = item.weights.removeprefix("hub:"), UPSTREAM_FILES.get(item.name)
    rows = [
        ("Type", "image classification, feature backbone"),
        ("Parameters (M)", f"{size.params / 1e6:.2f}"),
        ("GMACs", f"{size.gmacs:#.3g}, and {size.attention_gmacs:#.3g} inside attention"),
        ("Activations (M)", f"{size.activations / 1e6:.1f}"),
        ("Image size", " x ".join(map(str, item.input_size))),
        ("Classes", str(item.num_classes)),
        ("Paper", about.paper if about else ""),
        ("Weights", where or (f"[{repository}](https://huggingface.co/{repository})" if repository != item.weights else item.weights)),
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
        lines.append(f"| {title} | {result.split} | {result.top1:g} | {told}{how} |\n")
    return "".join(lines)


def _training(item: Entry) -> str:
    if item.weights == "none":
        return "Not trained."
    if item.weights == "package":
        return "By `kat-zoo train`; the recipe is in `train/configs`, with the command, the time and the seed at its head."
    from_vit = ", starting from the weights of a ViT" if "vitft" in item.name else ""
    return AUTHORS_TRAINING.format(start=from_vit)


def render(
    item: Entry,
    title: str = "",
    load: str = "",
    training: str = "",
    measurer: str = "kat_zoo",
    arguments: str = "pretrained=True",
) -> str:
    """Write the card of a model.

    Args:
        item: the model.
        title: of the card; its name by default.
        load: what `timm.create_model` takes; its name by default.
        training: how it was trained; from what is known of it by default.
        measurer: who measured what is marked as ours.
        arguments: further arguments of `timm.create_model` that load the weights.

    Returns:
        Markdown with YAML front matter.
    """
    about, of_hub = family(item.name), arguments == "pretrained=True"
    # A file of weights is for the whole model: one made for features only would not take the classifier's.
    maps = f'timm.create_model("{load or item.name}", {arguments}, features_only=True)' if of_hub else "model.forward_intermediates"
    biases = [dataset(result.dataset).bias for result in item.results]
    sections = [
        ("", about.description if about else "An image classifier of the kat_zoo package."),
        ("Details", _details(item)),
        ("Results", _results(item.results)),
        (
            "Usage",
            USAGE.format(
                load=load or item.name,
                arguments=arguments,
                maps=maps,
                intermediates="" if of_hub else ", intermediates_only=True",
                mode="L" if item.input_size[0] == 1 else "RGB",
                width=item.size.num_features,
            ),
        ),
        ("Training", training or _training(item)),
        (
            "Limits",
            f"Made for images of {item.input_size[1]} x {item.input_size[2]} of the kind it was trained on; its "
            "probabilities are not calibrated, and it has no class for anything else. Not for decisions about people.",
        ),
        ("Bias", " ".join(filter(None, biases)) or "Not studied; that of the data it was trained on."),
        ("Citation", f"```bibtex\n{about.citation}\n```" if about else ""),
    ]
    text = f"---\n{metadata(item, title or item.name, measurer).to_yaml()}\n---\n\n# {title or item.name}\n"
    for heading, body in sections:
        if body:
            text += f"\n## {heading}\n\n" if heading else "\n"
            text += body.rstrip("\n") + "\n"
    return text


def published() -> list[str]:
    """Names of the models that have weights, each of which has a card."""
    return [name for name in names() if entry(name).weights != "none"]


def stale(folder: Path) -> list[str]:
    """Names of the cards in `folder` that are missing, differ from what is rendered, or have lost their model."""
    wanted = {f"{name}.md": render(entry(name)) for name in published()}
    present = {path.name: path.read_text() for path in folder.glob("*.md")}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def main(argv: Sequence[str]) -> int:
    """`kat-zoo cards`: write the model cards, or check them.

    Raises:
        ValueError: with `--check`, if a card is stale.
    """
    parser = ArgumentParser(prog="kat-zoo cards", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("model_cards"), help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a card is stale")
    options = parser.parse_args(argv)
    changed = stale(options.out)
    if options.check and changed:
        raise ValueError(f"stale model cards in {options.out}: {', '.join(changed)}; run kat-zoo cards")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in changed:
        path = options.out / name
        if path.stem in published():
            path.write_text(render(entry(path.stem)))
            print(path)
        else:
            print(f"{path} belongs to no model with weights: delete it")
    return 0
