"""Sections of docs/results.md on accuracy, each a function that returns its lines; `readme.py` writes them."""

import statistics

import tables
from compare_report import by_row, equal_time, results_table
from compare_rows import MAIN
from pico import FAMILIES as PICO
from readme_data import HERE, Row, mean, one, percent, prose, rows, select, shipped, table

from kat_zoo.hub import registry
from kat_zoo.models._builder import WEIGHTS


def weights() -> list[str]:
    trained = rows("results/pico/runs.csv")

    def line(family: str, model: str) -> tuple[str, ...]:
        name = f"{model}.fmnist"
        these = select(trained, family=family)
        top1 = [float(row["top1"]) for row in these]
        size = f"{(WEIGHTS / f'{name}.safetensors').stat().st_size / 1e6:.2f}"
        params = f"{registry.entry(name).size.params / 1e6:.2f}"
        if not these:
            return name, params, size, "from the start", "", "1", "", f"{shipped(name):.2f}", ""
        minutes = f"{statistics.mean(float(row['cpu_minutes']) for row in these):.0f}"
        spread = f"{statistics.mean(top1):.2f}" + (f" ± {statistics.stdev(top1):.2f}" if len(top1) > 1 else "")
        return name, params, size, "distilled", these[0]["lr"], str(len(these)), spread, f"{shipped(name):.2f}", minutes

    teacher = one(trained, family="teacher")
    return [
        *prose(f"""
            Top-1 on all 10,000 test images of Fashion-MNIST; `kat-zoo validate --model.name MODEL` evaluates a file. "Distilled" is the
            recipe kat_pico_distilled_fmnist, with a ResNet that reaches {float(teacher["top1"]):.2f} % as the teacher
            ({float(teacher["cpu_minutes"]):.0f} CPU minutes), at a rate searched for on images held out. The seed that ships is the best
            one on the test images, which flatters it: the mean is the claim. "From the start" is the recipe of the name, without a
            teacher, at a rate that was not searched for: the two are not to be compared.
        """),
        "",
        *table(
            ("weights", "params (M)", "MB", "trained", "rate", "seeds", "top-1 %, mean", "top-1 % as shipped", "CPU minutes a run"),
            [line(family, model) for family, model in PICO.items()],
        ),
    ]


def comparison() -> list[str]:
    folder = "results/compare/small"
    runs = by_row(rows(f"{folder}/runs.csv"))
    costs: dict[str, Row] = {}
    for row in rows(f"{folder}/sizes.csv") + rows(f"{folder}/measure.csv"):
        costs.setdefault(row["row"], {}).update(row)

    def top1(key: str) -> str:
        return percent(statistics.fmean(run["top1"] for run in runs[key].values()))

    def over_vit(key: str, cost: str) -> str:
        return f"{float(costs[key][cost]) / float(costs['vit'][cost]):.1f}"

    return [
        *prose("""
            Six models of one depth and width, trained alike: 12,000 images of Fashion-MNIST, 3 epochs, a learning-rate sweep of its own
            for each on images held out, three seeds. Times by `--measure`: forward and backward in bfloat16 autocast on one thread, on
            a CPU with AVX-512 and bfloat16. Rows of one seed, learning rates and further pictures:
            [tables.md](../benchmarks/results/compare/small/tables.md).
        """),
        "",
        *results_table(list(MAIN), runs, costs, own_reference=False),
        "",
        "![Accuracy against parameters, multiply-adds and time](../benchmarks/results/compare/small/views.png)",
        "",
        *prose(f"""
            The learnable attention wins, by far, in so short a training; also under noise. The likely reason is not the KAN in it: its
            coefficients belong to positions, which need not be found first. An MLP-Mixer with GR-KANs ({top1("mixer")} %) and even an
            MLP on the pixels ({top1("mlp")} %; one seed each) do as well, and on shifted images the KArAts are the worst of the six.
            KAT's activations cannot be told from GELU or SwiGLU by three seeds, and cost this small model
            {over_vit("kat", "ms_per_image")} times the time. B-spline layers cost {over_vit("vit_kan", "ms_per_image")} times the time
            and {over_vit("vit_kan", "params")} times the parameters, and are the worst under noise.
        """),
        "",
        *(line for paragraph in equal_time(rows(f"{folder}/curves.csv"), costs) for line in prose(paragraph)),
        "",
        *prose("""
            The comparison is one data set at 0.5M parameters and 560 updates. Its learning rates were searched at a third of that
            length, once for each family and for the ViTs with PReLU or a rational per node; other variants have their family's rate.
            Longer training narrows the differences: see the [weights that ship](#weights-that-ship), and, for a KArAt and its softmax
            twin after ten epochs, [docs/attention.md](attention.md).
        """),
    ]


def scaling() -> list[str]:
    names = {"vit": "ViT", "kat": "KAT"}
    lines = []
    for row in rows("results/scaling/small/fits.csv"):
        interval = f"{float(row['alpha_low']):.2f} to {float(row['alpha_high']):.2f}"
        lines.append((names[row["family"]], row["against"], row["points"], row["l_inf"], f"{float(row['alpha']):.2f}", interval))
    data = rows("results/scaling/small/runs.csv")
    pairs = [(one(data, family="kat", width=vit["width"], images=vit["images"]), vit) for vit in select(data, family="vit")]
    better = [kat["width"] for kat, vit in pairs if float(kat["loss"]) < float(vit["loss"])]
    return [
        *prose("""
            Widths 24, 48, 96 by 3,000, 9,000, 27,000 images, 3 epochs, one seed ([runs](../benchmarks/results/scaling/small/runs.csv)).
            The loss is fitted by l_inf + (x0 / x)^alpha, where x is the parameters at most data, the images at the largest width, or
            the compute along its frontier; 90 % intervals.
        """),
        "",
        *table(("family", "against", "points", "l_inf", "alpha", "interval"), lines),
        "",
        *prose(f"""
            The two families follow each other. KAT has the lower loss in {len(better)} of {len(pairs)} runs, all of width
            {", ".join(sorted(set(better)))}. The best size moves from 0.03M to 0.45M parameters in a hundredfold of compute for both
            ([picture](../benchmarks/results/scaling/small/n_opt.png)).
        """),
        "",
        *prose("""
            Limits: three points do not determine a floor, one seed has no spread (the intervals resample the points), all models are
            far from trained out, and all have the learning rate 1.2e-3, where the sweep at width 96 chose 3.6e-3 for both.
        """),
        "",
        "![Loss against parameters, data and compute](../benchmarks/results/scaling/small/scaling.png)",
    ]


def atlas() -> list[str]:
    lines = [(row["activations"], percent(float(row["top1"]))) for row in rows("results/atlas_swaps.csv")]
    return [
        *prose("""
            The activations of the shipped KAT after training, and its top-1 when they are replaced. They leave their initial functions
            far behind, and need to. The eight groups hardly specialize: one function for all of them does almost as well. Dashed in the
            picture: the initial functions; gray: the distribution of the inputs.
        """),
        "",
        *table(("activations", "top-1 %"), lines),
        "",
        "![Learned activations](atlas.png)",
        "",
        "Dashed: where a function started; gray: its inputs. Change: distance from the start, and apart: distance of the groups' functions "
        "from their mean, both in percent of the start's size, over the inputs.",
    ]


def karat_ablations() -> list[str]:
    data = rows("results/karat_ablations.csv")
    minutes = sum(float(row["cpu_minutes"]) for row in data)
    return [
        *prose(f"""
            A pico KArAt on {int(data[0]["images"]):,} images, {data[0]["epochs"]} epochs, one seed, one learning rate; {minutes:.0f}
            CPU minutes for all {len(data)} rows ([by table of the paper](../benchmarks/results/karat_ablations.md)). The run with
            rational edges reached a loss of 1.24, then diverged.
        """),
        "",
        *table(("changed", "variant", "top-1 %"), [(row["group"], row["variant"], percent(float(row["top1"]))) for row in data]),
    ]


def laws() -> list[str]:
    names = {"kan": "kat_zoo", "operon": "pyoperon 0.6", "gplearn": "gplearn 0.4"}
    lists = {
        "kan_laws.csv": "own, 40 laws",
        "kan_laws_catalogue.csv": "FastSRB, 76 laws",
        "kan_laws_catalogue_units.csv": "FastSRB, units given",
    }
    lines, lost = [], []
    for file, label in lists.items():
        if not (HERE / "results" / file).exists():
            continue
        data = rows(f"results/{file}")
        for noise, method in sorted(
            {(float(row["noise"]), row["method"]) for row in data}, key=lambda key: (key[0], list(names).index(key[1]))
        ):
            part = [row for row in data if (float(row["noise"]), row["method"]) == (noise, method)]
            found = [row for row in part if int(row["recovered"])]
            seconds = [float(row["cpu_seconds"] or 0) for row in part]
            ratios = [int(row["length"]) / int(row["law_length"]) for row in found if row["length"] and row["law_length"]]
            length = f"{statistics.median(ratios):.2f}" if ratios else ""
            share = f"{len(found)} of {len(part)} ({100 * len(found) / len(part):.0f} %)"
            seeds = len({row["seed"] for row in part})
            lines.append((label, names[method], f"{100 * noise:g} %", f"{seeds}", share, f"{statistics.median(seconds):.1f}", length))
            if method == "kan":
                missing = sorted({row["law"] for row in part if not int(row["recovered"])})  # for one seed or more
                lost.append(f"{label}, {100 * noise:g} % noise: {', '.join(missing) or 'none'}")
    head = ("laws", "method", "noise", "seeds", "recovered", "median CPU s", "length over the law's")
    return [
        *prose("""
            1,000 rows, one thread, 10 CPU seconds a law for each method, on a machine that did other work as well. A law counts as
            recovered where the formula has a relative squared error of at most 1.2e-7 on 2,000 fresh rows of the same box and no undefined
            function; with noise s, of at most (s / 5)^2. That is the measure of published comparisons; an approximation as good as that
            counts, too. Peers see inputs and values divided by their sizes. Operon starts anew every quarter of its time, and the start
            with the least error on held-out rows counts. The search was developed while both lists, our own and 76 laws of FastSRB (arXiv
            2508.14481), were in sight, so the rows say little about laws that nobody has seen. The rows of
            FastSRB add `--catalogue FILE`, those with units given are of `--budget 10 --seeds 3 --catalogue FILE --units`, and gplearn's of
            `--budget 10 --resume --peers gplearn`.
        """),
        "",
        *table(head, lines),
        "",
        *prose(f"Lost by ours for one seed or more: {'; '.join(lost)}."),
        "",
        "![Share of the own laws recovered against CPU seconds](../benchmarks/results/kan_laws.png)",
    ]


def formulas() -> list[str]:
    data = [row for row in rows("results/kan_formula_summary.csv") if row["target"] != "all"]
    lines = [
        (
            row["target"],
            "1 %" if float(row["noise"]) else "",
            f"{row['right']} of {row['seeds']}",
            row["median_rmse"],
            row["median_cpu_seconds"],
        )
        for row in data
    ]
    right, seeds = (sum(int(row[key]) for row in data if float(row["noise"])) for key in ("right", "seeds"))
    return [
        *prose(f"""
            1,000 samples, on a busy, slower machine with AVX2. Without noise a formula counts if it is exact; with noise, if it is
            symbolic and its RMSE is at most a fifth of the noise: {right} of {seeds}. Options for the other rows: `--targets distance
            --seeds 8`, `--seeds 4`, `--seeds 4 --noise 0.01`.
        """),
        "",
        *table(("target", "noise", "right", "RMSE, median", "CPU seconds, median"), lines),
    ]


def small_tables() -> list[str]:
    found = tables.scores(rows("results/tables.csv"))
    close = [(name, f"{rank:.2f}", f"{close} of {count}", f"{seconds:.2f}") for name, rank, close, count, seconds in tables.overview(found)]
    names = [name for name in tables.MODELS if any(name in values for values in found.values())]
    lines = [
        (table, *(f"{values[name][0]:.3f} ({values[name][1]:.2g})" if name in values else "" for name in names))
        for table, values in found.items()
    ]
    return [
        *prose(f"""
            Untuned, 5 folds twice: R^2 of regressors, accuracy of classifiers, CPU seconds of a fit in parentheses (on a busy machine, so
            upper readings). Lost by more than 0.01: {", ".join(tables.losses(found)) or "none"}. EBM is not measured where it needs
            minutes a fit: those cells are empty.
        """),
        "",
        *table(("model", "mean rank", "within 0.01 of the best", "CPU seconds a fit, median"), close),
        "",
        *table(("table", *names), lines),
        "",
        "![Distance of each model from the best of its table](../benchmarks/results/tables.png)",
    ]


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


def dense() -> list[str]:
    data = rows("results/dense/runs.csv")
    lines = []
    for backbone, label in {"KAT": "KAT", "ViT": "ViT", "random": "KAT, random weights, frozen"}.items():
        scores = [
            " / ".join(percent(float(row["percent"])) for row in select(data, backbone=backbone, metric=metric))
            for metric in ("box_ap50", "mask_ap50", "miou")
        ]
        minutes = [percent(mean(data, "cpu_minutes", backbone=backbone, metric=metric)) for metric in ("box_ap50", "miou")]
        lines.append([label, *scores, *minutes])
    return [
        *prose("""
            A pico KAT, its ViT twin and a frozen random KAT under one Mask R-CNN (900 updates) and one UperNet (600 updates of 8
            scenes), on 1,200 composed scenes of Fashion-MNIST items; seeds 0 / 1. KAT and ViT began with earlier weights than those
            that ship now (91.0 and 89.1 % on Fashion-MNIST). How to read the figures: [docs/dense.md](dense.md#results).
        """),
        "",
        *table(("backbone", "box AP50 %", "mask AP50 %", "mIoU %", "CPU minutes, detector", "CPU minutes, UperNet"), lines),
    ]


def nuclei() -> list[str]:
    data = rows("results/nuclei/runs.csv")
    lines = []
    for backbone, label in {"KAT": "KAT", "ViT": "ViT", "random": "KAT, random weights, frozen"}.items():
        each = [float(row["miou"]) for row in select(data, backbone=backbone)]
        classes = [percent(mean(data, f"iou_{name}", backbone=backbone)) for name in ("background", "nucleus", "edge")]
        spread = f"{percent(statistics.fmean(each))} ± {statistics.stdev(each):.1f}"
        lines.append([label, spread, *classes, percent(mean(data, "cpu_minutes", backbone=backbone))])
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


def resume() -> list[str]:
    data = rows("results/resume.csv")
    equal = sum(row["loss_left_alone"] == row["loss_interrupted"] for row in data)
    return [
        *prose(f"""
            A training run that was killed, then stopped, and continued each time, against the same run left alone: the command compares
            all log records and all weights bit by bit. Of the {len(data)} losses in the checked-in log, {equal} are equal to the last
            digit.
        """),
        "",
        "![Loss of both runs](../benchmarks/results/resume.png)",
    ]
