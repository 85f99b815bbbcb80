"""Sections of docs/results.md on time and memory, each a function that returns its lines; `readme.py` writes them."""

import json

import deploy
from readme_data import HERE, Row, one, prose, rows, select, table

PASSES = ("forward", "forward+backward")


def activation() -> list[str]:
    data = rows("rational.csv")
    columns = [
        *(("kat_zoo", name) for name in PASSES),
        *(("kat_zoo", f"{name}, preallocated") for name in PASSES),
        *(("eager PyTorch", name) for name in PASSES),
        *(("torch.compile", name) for name in PASSES),
    ]
    lines = []
    for kat in select(data, method="kat_zoo", **{"pass": "forward"}):
        where = {key: kat[key] for key in ("rows", "channels", "dtype", "threads")}
        cells = [f"{kat['rows']} x {kat['channels']}", kat["dtype"], kat["threads"]]
        for method, name in columns:
            found = select(data, method=method, **where, **{"pass": name})
            cells.append(f"{float(found[0]['ratio_to_gelu']):.2f}" if found else "")
        lines.append(cells)
    header = ["elements", "dtype", "threads"]
    header += [f"{method}{name}" for method in ("", "reused, ", "eager, ", "compiled, ") for name in ("forward", "both")]
    return [
        *prose("""
            Time of the group-rational activation over that of `nn.GELU` of the same dtype: forward, and forward and backward. Results
            lie in fresh memory, or, `reused`, in memory that is already there. `eager` and `compiled` are the formula in plain PyTorch.
            On small tensors the call of a Python operator counts.
        """),
        "",
        *table(header, lines),
        "",
        *prose("""
            From 8 MiB on, the CPU kernels ask Linux for huge pages under their results; that saves page faults, not arithmetic, and
            torch can do the same for every tensor (`THP_MEM_ALLOC_ENABLE=1`). The columns `reused` compare the kernels alone. A program
            whose allocator keeps freed memory lies between the two.
        """),
        "",
        "![Time against elements](../benchmarks/rational.png)",
    ]


def quartiles(row: Row, low: str, high: str) -> str:
    return f"{float(row[low]):.2f} to {float(row[high]):.2f}" if row[low] else ""


def whole_models() -> list[str]:
    lines = [
        (
            row["what"],
            row["threads"],
            row["model"],
            f"{float(row['ratio_to_gelu']):.2f}",
            quartiles(row, "first_quartile", "third_quartile"),
        )
        for row in rows("kat_model.csv")
        if row["model"] != "GELU"
    ]
    return [
        *prose("""
            KAT-T over DeiT-T, batch 8, freed memory kept: time, or peak memory. The ratio is larger where glibc gives memory back after
            each step (`MALLOC_TRIM_THRESHOLD_`).
        """),
        "",
        *table(("measured", "threads", "model", "ratio", "quartiles"), lines),
    ]


def gpu_kernels() -> list[str]:
    found = json.loads((HERE / "kernels.json").read_text())
    lines = []
    for kernel in dict.fromkeys(row["kernel"] for row in found):
        for dtype in ("float32", "bfloat16"):
            chosen = [row for row in found if (row["kernel"], row["dtype"], row["arch"]) == (kernel, dtype, "sm_90")]
            if not chosen:  # splines are computed in float32, whatever the inputs
                continue
            ends = {row["group_width"]: row for row in (chosen[0], chosen[-1])}
            cost = max(row["spills"] + row["stack"] + row["atomics"] for row in chosen)
            keys = ("group_width", "instructions_per_element", "occupancy", "waves", "bandwidth_share")
            values = (" and ".join(str(row[key]) for row in ends.values()) for key in keys)
            lines.append((kernel, dtype, *values, str(chosen[-1]["load_bits"]), str(cost)))
    spilling = sorted({(row["kernel"], row["arch"], row["spills"]) for row in found if row["spills"]})
    header = ("kernel", "dtype", "group width", "instructions", "occupancy", "waves", "roofline", "bits a load", "spills, stack, atomics")
    said = "; ".join(f"{kernel} on {arch} spills {count} scalar registers and no vector register" for kernel, arch, count in spilling)
    return [
        *prose("""
            Triton kernels compiled ahead of time for sm_90: instructions per element (per logit in attention, G = 3 and r = 12; of splines
            per basis written, per input, per multiply-add), at the smallest and the largest group width or number of outputs. Occupancy
            and waves are those of 132 multiprocessors at batch 128; the roofline is the largest share of the memory's bandwidth that the
            issue of instructions leaves: 1.0 for a kernel that memory alone bounds. Their speed on a GPU has **not been measured**:
            `make bench-gpu` does it.
        """),
        "",
        *table(header, lines),
        "",
        *prose(f"Architectures of the report: {', '.join(sorted({row['arch'] for row in found}))}. Spills among them: {said or 'none'}."),
    ]


def flashkat() -> list[str]:
    found = json.loads((HERE / "results/flashkat.json").read_text())
    lines = []
    for row in found:
        if row["arch"] == "sm_90" and row["group_width"] in (24, 96, 384):
            keys = ("instructions_per_element", "divisions", "bytes_per_element", "registers", "spills", "atomics", "bandwidth_share")
            what = "backward" if "bwd" in row["kernel"] or "backward" in row["kernel"] else "forward"
            lines.append((what, str(row["group_width"]), row["from"], *(str(row[key]) for key in keys)))
    lines.sort(key=lambda line: (line[0] != "forward", int(line[1])))
    header = ("pass", "group width", "kernels", "instructions", "divisions", "bytes", "registers", "spills", "atomics", "roofline")
    return [
        *prose("""
            The rational kernels of a clone of FlashKAT and ours, float32, compiled for sm_90 as each launches them, figures per element
            by the same counter. Divisions are those of integers too; bytes are all that a thread asks for, coefficients from a cache
            included. This is code, not time: neither has been timed here.
        """),
        "",
        *table(header, lines),
    ]


def fourier_attention() -> list[str]:
    data = rows("results/fourier_attention.csv")
    names = {"karat_g1": "KArAt-T, G = 1", "karat_g3": "KArAt-T, G = 3"}
    models = [
        (
            names[row["what"]],
            row["pass"],
            f"{float(row['ratio_median']):.2f}",
            quartiles(row, "ratio_low", "ratio_high"),
            f"{float(row['ratio_peak']):.2f}" if row["ratio_peak"] else "",
        )
        for row in select(data, part="models")
        if row["what"] in names
    ]
    labels = {"karat": "kernel", "softmax": "fused softmax", "karat_matmul": "N x N maps", "karat_einsum": "formula as einsum"}
    alone = [
        (labels[row["what"]], row["median_ms"], f"{float(row['ratio_median']):.2f}", row["peak_mb"])
        for row in select(data, part="operator")
    ]
    tokens = []
    for kernel in select(data, part="tokens", what="karat"):
        softmax, maps = (one(data, part="tokens", what=what, tokens=kernel["tokens"]) for what in ("softmax", "karat_matmul"))
        tokens.append((kernel["tokens"], f"{float(kernel['ratio_median']):.2f}", kernel["peak_mb"], softmax["peak_mb"], maps["peak_mb"]))
    return [
        "Time and peak memory over those of ViT-T with fused attention, batch 16, 2 threads:",
        "",
        *table(("model", "pass", "time", "quartiles", "peak memory"), models),
        "",
        "The attention alone, 16 images of 197 tokens, 3 heads, G = 3, r = 12, forward and backward, 2 threads:",
        "",
        *table(("attention", "milliseconds, median", "over the kernel", "peak memory, MB"), alone),
        "",
        *prose("""
            The same over more tokens, 4 images: time over that of fused softmax, and peak memory in MB, which grows with N and not with
            N^2.
        """),
        "",
        *table(("tokens N", "time", "kernel", "fused softmax", "N x N maps"), tokens),
        "",
        "![Time and memory over tokens](../benchmarks/results/fourier_attention.png)",
    ]


def spline_networks() -> list[str]:
    lines = [(row["shape"], row["grid_size"], row["model"], f"{float(row['min_ms']):.1f}") for row in rows("results/kan_speed.csv")]
    return [
        *prose("""
            B-spline networks, batch 1024, forward and backward, float32, 1 thread of a quiet machine, best time in milliseconds: beside
            inkan 0.5.2 (compiled), pykan 0.2.8 (`speed()`) and a perceptron of the same shape.
        """),
        "",
        *table(("shape", "grid size", "network", "ms"), lines),
        "",
        "![Time of a step](../benchmarks/results/kan_speed.png)",
    ]


def large_tables() -> list[str]:
    lines = [
        (
            f"{int(row['rows']):,} x {row['columns']}",
            row["model"],
            row["score"],
            row["cpu_seconds"],
            row["table_mb"],
            row["peak_mb_over_table"],
        )
        for row in rows("results/tables_speed.csv")
    ]
    return [
        *prose("""
            A fit with the defaults on one thread, beside histogram boosting: R^2, CPU seconds, and the growth of the largest memory of the
            process during the fit.
        """),
        "",
        *table(("table", "model", "R^2", "CPU seconds", "MB of the table", "MB of the fit"), lines),
    ]


def devices() -> list[str]:
    data = rows("results/deploy.csv")
    lines = [
        (row["table"], row["model"], row["score"], row["bytes"], f"{float(row['microseconds_a_row']):.2f}", row["microseconds_over_c"])
        for row in data
    ]
    return [
        *prose("""
            Estimators without hidden layers, and their programs (`kat_zoo.kan.deploy`), answer one row at a time: least processor time of a
            row, one thread, all in turns. R^2 or accuracy on held-out rows. Bytes of the constants, of arrays, or of the ONNX file; of the
            estimator and its network, parameters in single precision. The MLP is the smallest of one hidden layer that is as good to 0.01,
            or the best where none is, and its C is compiled by the same command.
        """),
        "",
        *table(("table", "model", "score", "bytes", "microseconds", "over C"), lines),
        "",
        *(f"* {line}." for line in deploy.goals(data)),
    ]


def loader() -> list[str]:
    values = {row["what"]: row["value"] for row in rows("results/loader.csv")}
    lines = [(n, f"{float(values[f'images_per_s, {n} workers']):.0f}", values[f"cores_used, {n} workers"]) for n in ("1", "2")]
    return [
        "ImageNet's training transform of JPEG files of 500 x 375, 2 cores with AVX-512:",
        "",
        *table(("worker processes", "images a second", "cores busy"), lines),
        "",
        "![Where the time goes](../benchmarks/results/loader.png)",
    ]
