import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from kat_zoo.kan import KAN
from kat_zoo.kan.operations.charts import plot_edge, plot_history, plot_pareto


def network():
    model = KAN([2, [2, 1], 1], 5, seed=1)
    model.fix_symbolic(0, 0, 0, "sin", affine=(3.0, 0.0, 1.0, 0.0))
    return model, torch.rand(100, 2, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_network_diagram(tmp_path, suffix):
    model, x = network()
    figure = model.plot(x, variables=["a", "b"], outputs=["f"], title="t")
    figure.savefig(tmp_path / f"kan.{suffix}")
    assert (tmp_path / f"kan.{suffix}").stat().st_size > 2000
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert {"a", "b", "f", "sin"} <= texts
    assert r"$\alpha$" in {text.get_text() for text in model.plot(x, variables=[r"$\alpha$", "b"]).axes[0].texts}
    curves = figure.axes[0].collections[2]
    strong = sum(1 for _ in model.edges())
    assert 0 < len(curves.get_segments()) <= strong
    with pytest.raises(ValueError, match="variables"):
        model.plot(x, variables=["a"])


def test_pruned_edges_are_not_drawn():
    model, x = network()
    before = len(model.plot(x, threshold=0.0).axes[0].collections[2].get_segments())
    model.remove_edge(0, 1, 1)
    assert len(model.plot(x, threshold=0.0).axes[0].collections[2].get_segments()) == before - 1


def test_other_pictures(tmp_path):
    model, x = network()
    history = model.fit(x, x[:, :1] * x[:, 1:], steps=10, grid_schedule=(5, 10))
    for n, figure in enumerate(
        (
            plot_edge(model, 0, 0, 1, x),
            plot_history(history),
            plot_pareto([(1, 0.5, "x"), (3, 1e-3, "y"), (4, 0.1, "z")]),
        )
    ):
        figure.savefig(tmp_path / f"{n}.png")
        assert (tmp_path / f"{n}.png").stat().st_size > 2000


def test_many_edges_stand_in_rows():
    x = torch.rand(50, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    figure = KAN([10, 20, 5, 1]).plot(x, threshold=0.0)
    boxes = torch.tensor(np.array([segment[:4].mean(0) for segment in figure.axes[0].collections[1].get_segments()]))
    assert len(boxes) == 305 and figure.get_figwidth() < 30
    apart = torch.cdist(boxes, boxes, p=float("inf")).fill_diagonal_(1)
    assert apart.min() > 0.36  # no thumbnail covers another


def test_history_without_held_out_data_has_one_curve():
    x = torch.rand(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = KAN([2, 1])
    labels = [
        {text.get_text() for text in plot_history(model.fit(x, x[:, :1], *held_out, steps=3)).axes[0].get_legend().get_texts()}
        for held_out in ((), (x[:9], x[:9, :1]))
    ]
    assert labels == [{"training", "kept"}, {"training", "held out", "kept"}]


def test_names_stand_outside_of_their_nodes():
    model, x = network()
    axes = model.plot(x, variables=["a", "b"], outputs=["f"]).axes[0]
    height = {text.get_text(): text.get_position()[1] for text in axes.texts}
    floors = [y for dots in axes.collections for y in dots.get_offsets()[:, 1]]
    assert height["a"] == height["b"] < min(floors) and height["f"] > max(floors)


@pytest.mark.parametrize("names", [["color=missing", "weight_kg", "weight_kg=missing", "a"], ["a", "b", "c", "d"]])
def test_names_do_not_run_into_each_other(names):
    x = torch.rand(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    figure = KAN([4, 1, 4]).plot(x, variables=names, outputs=[f"{name} out" for name in names])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    centers = [text.get_window_extent(canvas.get_renderer()) for text in texts if text.get_rotation() == 0]
    assert not any(one.overlaps(other) for n, one in enumerate(centers) for other in centers[:n])
    assert (texts[0].get_rotation() != 0) == (len(names[0]) > 1)
