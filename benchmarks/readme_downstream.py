"""Sections of docs/results.md on pretrained models in other tasks, each a function that returns its lines; `readme.py` writes them."""

import statistics

from compare_report import paired, signed, spread
from readme_data import Row, mean, percent, prose, rows, select, table

BACKBONES = {"KAT": "KAT", "ViT": "ViT", "random": "KAT, random weights, frozen"}


def lp_ft() -> list[str]:
    data = rows("results/lp_ft.csv")
    names = {"LP": "linear probe", "FT": "fine-tuning", "LP-FT": "LP-FT", "rationals": "rationals alone after the probe"}
    lines = [
        (
            label,
            percent(mean(data, "top1", method=method, images="clean (ID)")),
            percent(mean(data, "top1", method=method, images="mean OOD")),
            f"{mean(data, 'feature_drift', method=method, images='clean (ID)'):.2f}",
        )
        for method, label in names.items()
    ]
    return [
        *prose("""
            A KAT pretrained on 5 classes of Fashion-MNIST, adapted to the other 5 with 200 images each; mean of 3 seeds. Out of
            distribution is the mean of four shifts. LP-FT wins in distribution, and not out of it. Drift: how far features move, in
            parts of their norm.
        """),
        "",
        *table(("adaptation", "top-1 % in distribution", "out of distribution", "feature drift"), lines),
    ]


def few_shot() -> list[str]:
    data = rows("results/few_shot_tuning.csv")
    lines = []
    for backbone, method in dict.fromkeys((row["backbone"], row["method"]) for row in data):
        these = select(data, backbone=backbone, method=method)
        probe, top1 = ([float(row[key]) for row in these if row[key]] for key in ("probe", "top1"))
        minutes = f"{statistics.fmean(float(row['cpu_minutes']) for row in these):.0f}"
        lines.append([backbone, method, spread(probe, 1) if probe else "", spread(top1, 1), minutes])
    return [
        *prose("""
            50 images of each class of Fashion-MNIST at 112 pixels, 1,000 test images: a DINOv2 ViT-S (a derivative, fine-tuned for
            saliency) and the KAT made of it. LP-FT fits a linear probe first and then fine-tunes all weights; "rationals" trains the
            activations and a new classifier alone. 150 updates of 50 images; mean and standard deviation of three seeds of other
            training images each. Nearest neighbors on the frozen features: [docs/transfer.md](transfer.md).
        """),
        "",
        *table(("backbone", "method", "top-1 % of the probe", "top-1 %", "CPU minutes"), lines),
    ]


def dense() -> list[str]:
    data = rows("results/dense/runs.csv")
    lines = []
    for backbone, label in BACKBONES.items():
        scores = [
            " / ".join(percent(float(row["percent"])) for row in select(data, backbone=backbone, metric=metric))
            for metric in ("box_ap50", "mask_ap50", "miou")
        ]
        minutes = [percent(mean(data, "cpu_minutes", backbone=backbone, metric=metric)) for metric in ("box_ap50", "miou")]
        lines.append([label, *scores, *minutes])
    return [
        *prose("""
            A pico KAT, its ViT twin and a frozen random KAT under one Mask R-CNN (900 updates) and one UperNet (600 updates of 8
            scenes), on 1,200 composed scenes of Fashion-MNIST items; seeds 0 / 1. KAT and ViT begin with the weights that ship. CPU
            with AVX-512 and bfloat16. How to read the figures: [docs/dense.md](dense.md#results).
        """),
        "",
        *table(("backbone", "box AP50 %", "mask AP50 %", "mIoU %", "CPU minutes, detector", "CPU minutes, UperNet"), lines),
    ]


def nuclei() -> list[str]:
    data = rows("results/nuclei/runs.csv")
    lines = []
    for backbone, label in BACKBONES.items():
        each = [float(row["miou"]) for row in select(data, backbone=backbone)]
        classes = [percent(mean(data, f"iou_{name}", backbone=backbone)) for name in ("background", "nucleus", "edge")]
        lines.append([label, spread(each, 1), *classes, percent(mean(data, "cpu_minutes", backbone=backbone))])
    return [
        *prose("""
            Masks of a real picture: the KAT of a DINOv2 ViT-S (a derivative, fine-tuned for saliency) and that ViT, from the same weights,
            and a frozen random KAT, under one UperNet, 128 updates of 4 crops. The left half of a fluorescence micrograph with 126 nuclei
            (2018 Data Science Bowl, shipped by stardist, BSD-3-Clause) trains, the right half evaluates; mean and standard deviation of
            three seeds. It is one picture, and bright nuclei on black are easy: the random backbone comes close.
        """),
        "",
        *table(("backbone", "mIoU %", "background", "nucleus", "edge", "CPU minutes"), lines),
        "",
        "![Regions that each backbone finds](../benchmarks/results/nuclei/pictures.png)",
    ]


def trees() -> list[str]:
    data = rows("results/trees/runs.csv")
    lines = []
    for backbone, label in BACKBONES.items():
        each = [select(data, backbone=backbone, split=split) for split in ("held-out", "OSBS")]
        scores = [spread([float(row[key]) for row in these], 1) for these in each for key in ("ap", "ap50")]
        lines.append([label, *scores, f"{mean(data, 'cpu_minutes', backbone=backbone):.0f}"])
    return [
        *prose("""
            Boxes in real photographs: the same two backbones and a frozen random KAT under one Faster R-CNN, 882 updates of 2 tiles of
            224 pixels. Aerial photographs of the NEON airborne program with boxes, shipped by deepforest (the package is MIT; the
            pictures' own license is not stated): 99 tiles of Yellowstone and SOAP train, 22 that are held out and 4 of OSBS, another
            forest, evaluate. COCO's box AP; mean and standard deviation of three seeds. Batch size, rate and length were chosen with the
            ViT, on the tiles held out. In the other forest hardly a tree is found: 99 tiles do not teach what all forests share, and
            frozen random features find more than pretrained ones that were trained on them.
        """),
        "",
        *table(("backbone", "AP %, held out", "AP50 %", "AP %, OSBS", "AP50 %", "CPU minutes"), lines),
        "",
        "![Trees that each backbone finds](../benchmarks/results/trees/pictures.jpg)",
    ]


def beside_vit() -> list[str]:
    """A KAT and its ViT at the same data and updates, wherever both were trained, and whether one is better."""
    pico, few = rows("results/pico/runs.csv"), select(rows("results/few_shot_tuning.csv"), method="LP-FT")
    scenes, found = rows("results/dense/runs.csv"), rows("results/trees/runs.csv")
    measured: dict[str, tuple[list[Row], str, str]] = {
        "Fashion-MNIST, distilled, top-1": (pico, "family", "top1"),
        "500 images of Fashion-MNIST, LP-FT, top-1": (few, "backbone", "top1"),
        "nuclei, mIoU": (rows("results/nuclei/runs.csv"), "backbone", "miou"),
        "trees held out, AP50": (select(found, split="held-out"), "backbone", "ap50"),
        "trees of another forest, AP50": (select(found, split="OSBS"), "backbone", "ap50"),
        "scenes, box AP50": (select(scenes, metric="box_ap50"), "backbone", "percent"),
        "scenes, mIoU": (select(scenes, metric="miou"), "backbone", "percent"),
    }
    lines, clear = [], []
    for label, (data, column, key) in measured.items():
        kat, vit = (
            {int(row["seed"]): {name: float(row[name]) for name in (key, "cpu_minutes")} for row in select(data, **{column: name})}
            for name in ("KAT", "ViT")
        )
        if not vit:
            continue
        minutes = [statistics.fmean(run["cpu_minutes"] for run in runs.values()) for runs in (kat, vit)]
        scores = [spread([run[key] for run in runs.values()], 1) for runs in (kat, vit)]
        difference, interval = paired(kat, vit, key)
        lines.append((label, str(len(vit)), *scores, signed(difference, interval), f"{minutes[0] / minutes[1]:.2f}"))
        if interval and interval[0] * interval[1] > 0:
            clear.append(f"{label} ({difference:+.1f})")
    if clear:
        verdict = f"Clear of chance is the difference of {', '.join(clear)} alone; elsewhere the interval holds 0."
    else:
        verdict = "Every interval holds 0: by these runs a trained KAT neither beats its ViT at equal budget nor loses to it."
    single = [label for label, seeds, *_ in lines if seeds == "1"]
    if single:
        verdict += f" Of a single seed there is no interval: {', '.join(single)}."
    header = ("task", "seeds", "KAT %", "ViT %", "KAT over ViT [95 % interval]", "CPU minutes, KAT over ViT")
    return [*table(header, lines), "", *prose(f"{verdict} Intervals are of two or three runs, and wide.")]
