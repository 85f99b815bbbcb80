"""Results in the README and in docs/, written from the checked-in data alone.

python benchmarks/readme.py             # writes docs/results.md, docs/models.md and the table of the README
python benchmarks/readme.py --check     # exits with 1 where one of them is not what the data say
"""

import argparse
import statistics
import sys
from pathlib import Path

import readme_downstream as downstream
import readme_science as science
import readme_speed as speed
import readme_vision as vision
from readme_data import mean, one, percent, prose, rows, shipped, table

from kat_zoo.hub import registry

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- results: written by python benchmarks/readme.py -->\n", "<!-- end of results -->\n"
NOTE = "<!-- written by python benchmarks/readme.py; edit that, or the data -->\n"

# Title, command that measures, and the lines.
SECTIONS = (
    ("Weights that ship", "python benchmarks/pico.py --jobs 2", vision.weights),
    ("Is a KAN better here?", "python benchmarks/compare.py --resume", vision.comparison),
    ("Scaling", "python benchmarks/scaling.py --resume", vision.scaling),
    ("Learned activations", "python benchmarks/atlas.py", vision.atlas),
    ("What matters in a KArAt", "python benchmarks/karat_ablations.py --resume", vision.karat_ablations),
    ("Formulas", "python benchmarks/kan_formula.py --seeds 20 --targets toy", science.formulas),
    ("Laws of science", "python benchmarks/kan_laws.py --budget 10 --noise 0 0.01 0.1 --seeds 3 --peers operon", science.laws),
    ("Tables", "python benchmarks/tables.py", science.small_tables),
    ("Linear probe, fine-tuning, LP-FT", "python benchmarks/lp_ft.py", downstream.lp_ft),
    ("Few images of each class", "python benchmarks/few_shot_tuning.py --wheels WHEELS --resume", downstream.few_shot),
    ("Detection and segmentation", "python benchmarks/dense_proof.py --resume", downstream.dense),
    ("Nuclei in a micrograph", "python benchmarks/nuclei.py --wheels WHEELS --resume", downstream.nuclei),
    ("Trees in photographs", "python benchmarks/trees.py --wheels WHEELS --resume", downstream.trees),
    ("An interrupted run", "python benchmarks/resume.py", vision.resume),
    ("The activation", "python benchmarks/rational.py", speed.activation),
    ("A KAT beside its ViT", "python benchmarks/kat_model.py", speed.whole_models),
    ("Fourier attention", "python benchmarks/fourier_attention.py", speed.fourier_attention),
    ("B-spline networks", "python benchmarks/kan_speed.py", speed.spline_networks),
    ("A model on a device", "python benchmarks/deploy.py", speed.devices),
    ("Large tables", "python benchmarks/tables.py --speed", speed.large_tables),
    ("GPU kernels", "kat-zoo kernels report --json benchmarks/kernels.json", speed.gpu_kernels),
    ("GPU kernels beside FlashKAT's", "python benchmarks/flashkat.py FlashKAT", speed.flashkat),
    ("Data loader", "python benchmarks/loader.py --passes 2", speed.loader),
)


def highlights() -> str:
    """Five rows for the README, each with the place of the whole table."""
    activation = {"rows": "12608", "channels": "768", "dtype": "float32", "threads": "1", "method": "kat_zoo"}
    fresh, reused = (
        [float(one(rows("rational.csv"), **activation, **{"pass": name + kind})["ratio_to_gelu"]) for name in speed.PASSES]
        for kind in ("", ", preallocated")
    )
    steps = [float(one(rows("kat_model.csv"), what="training step", model="GR-KAN", threads=n)["ratio_to_gelu"]) for n in ("1", "2")]
    laws = {
        (method, noise): round(100 * mean(rows("results/kan_laws_catalogue.csv"), "recovered", method=method, noise=noise))
        for method in ("kan", "operon")
        for noise in ("0.0", "0.01")
    }
    runs = rows("results/compare/small/runs.csv")
    top1 = {key: mean(runs, "top1", row=key) for key in ("vit", "kat", "karat", "mlp")}
    kat = registry.entry("kat_pico_patch4_28.fmnist")
    seeds = [float(row["top1"]) for row in rows("results/pico/runs.csv") if row["family"] == "KAT"]
    lines = [
        (
            f"KAT of {kat.size.params / 1e6:.2f}M parameters, all 10,000 test images of Fashion-MNIST: mean of {len(seeds)} seeds, shipped",
            f"**{statistics.mean(seeds):.2f}** and **{shipped(kat.name):.2f} %** top-1",
            "[weights](docs/results.md#weights-that-ship)",
        ),
        (
            "time of the activation over that of nn.GELU, 12608 x 768, float32, one thread, in reused memory (fresh, on huge pages)",
            f"**{reused[0]:.2f}** ({fresh[0]:.2f}) forward, **{reused[1]:.2f}** ({fresh[1]:.2f}) forward + backward",
            "[activation](docs/results.md#the-activation)",
        ),
        (
            "training step of KAT-T over that of DeiT-T, batch 8, 1 and 2 threads",
            f"**{steps[0]:.2f}** and **{steps[1]:.2f}**",
            "[whole models](docs/results.md#a-kat-beside-its-vit)",
        ),
        (
            "top-1 after a short training, three seeds: Fourier-KArAt; KAT, ViT (not told apart); one seed: an MLP on the pixels",
            f"**{percent(top1['karat'])}**; {percent(top1['kat'])}, {percent(top1['vit'])}; {percent(top1['mlp'])} %",
            "[comparison](docs/results.md#is-a-kan-better-here)",
        ),
        (
            "laws of science found in 1,000 rows, 76 of FastSRB, in sight while the search was made; 10 CPU s a law, no noise and 1 % "
            "(pyoperon, the same)",
            f"**{laws['kan', '0.0']}** and **{laws['kan', '0.01']} %** ({laws['operon', '0.0']} and {laws['operon', '0.01']} %)",
            "[laws](docs/results.md#laws-of-science)",
        ),
    ]
    return "\n".join(["", *table(("claim", "figure", "all figures and the command"), lines), "", ""])


def results() -> str:
    lines = [
        "# Results",
        "",
        NOTE,
        *prose("""
            Each figure comes from the command above its table, and the output of that command is checked in. Times were taken on 2
            cores of an x86-64 server with AVX2 and without AVX-512 (Zen 3), with torch 2.14, where a section names no other machine.
            CPU minutes of trainings are of several machines, and compare only within their table. Losses are shown like wins.
        """),
    ]
    for title, command, section in SECTIONS:
        lines += ["", f"## {title}", "", f"    {command}", "", *section()]
    return "\n".join(lines) + "\n"


def models() -> str:
    lines = [
        "# Models",
        "",
        NOTE,
        *prose("""
            The output of `kat-zoo list --format markdown`. Parameters are in millions. GMACs are 1e9 multiply-adds of one image: of
            linear layers, convolutions and activations, and, in a column of their own, inside attention. Weights "none": the
            architecture alone. The cards of published weights lie in [model_cards](../model_cards).
        """),
        "",
    ]
    return "\n".join(lines) + "\n" + registry.markdown(registry.select())


def readme(text: str) -> str:
    """The README with its table of results replaced.

    Raises:
        ValueError: the marks around the table are missing.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md: expected the lines {BEGIN!r} and {END!r}")
    return head + begin + highlights() + end + tail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is not current")
    options = parser.parse_args()
    path = ROOT / "README.md"
    wanted = {ROOT / "docs/results.md": results(), ROOT / "docs/models.md": models(), path: readme(path.read_text())}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is not current' if options.check else 'written'}")
        if not options.check:
            path.write_text(wanted[path])
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
