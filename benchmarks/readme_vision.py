"""Sections of docs/results.md on image classification, each a function that returns its lines; `readme.py` writes them."""

import statistics

from compare_report import by_row, equal_time, results_table, spread
from compare_rows import MAIN
from pico import FAMILIES as PICO
from readme_data import Row, one, percent, prose, rows, select, shipped, table
from readme_downstream import beside_vit

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
        minutes = f"{statistics.median(float(row['cpu_minutes']) for row in these):.0f}"
        return name, params, size, these[0]["lr"], str(len(these)), spread(top1), f"{shipped(name):.2f}", minutes

    teacher = one(trained, family="teacher")
    return [
        *prose(f"""
            Top-1 on all 10,000 test images of Fashion-MNIST; `kat-zoo validate --model.name MODEL` evaluates a file. All have the recipe
            kat_pico_distilled_fmnist, with a ResNet that reaches {float(teacher["top1"]):.2f} % as the teacher
            ({float(teacher["cpu_minutes"]):.0f} CPU minutes), at a rate searched for on images held out. KAT starts from its paper's
            variance-preserving initialization, ViT and ViT + KAN from Xavier's, KArAt, which has six layers where the others have
            four, from timm's. The seed that ships is the best one on the test images, which flatters it: the mean is the claim.
        """),
        "",
        *table(
            ("weights", "params (M)", "MB", "rate", "seeds", "top-1 %, mean", "top-1 % as shipped", "CPU minutes a run, median"),
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
        """),
        "",
        *prose("""
            Longer training, and better first weights, narrow the differences. Below, a KAT and its ViT with the same images, updates and
            seeds. On all of Fashion-MNIST both start at random, the KAT from its own initialization and at its own rate, the largest that
            was tried ([all four families](#weights-that-ship)); on 500 images and on photographs both start from one DINOv2 ViT-S, and on
            [scenes](#detection-and-segmentation) from weights of the package, of which the KAT's were better. For a KArAt and its
            softmax twin after ten epochs see [docs/attention.md](attention.md).
        """),
        "",
        *beside_vit(),
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
            far behind, and need to. The eight groups hardly specialize: one function for all of them does almost as well.
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
            rational edges diverged.
        """),
        "",
        *table(("changed", "variant", "top-1 %"), [(row["group"], row["variant"], percent(float(row["top1"]))) for row in data]),
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
