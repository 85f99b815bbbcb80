"""Words of pykan, each with the words to write here, for whoever comes from there."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Keyword arguments.
ARGUMENTS = {
    "grid": "grid_size=",
    "k": "spline_order=",
    "base_fun": "base=",
    "noise_scale_base": "noise_scale=",
    "scale_base_mu": "nothing: base weights start as those of nn.Linear",
    "scale_base_sigma": "nothing: base weights start as those of nn.Linear",
    "sp_trainable": "requires_grad_(False) of model.layers[l].spline.coef",
    "sb_trainable": "requires_grad_(False) of model.layers[l].spline.base_weight",
    "save_act": "nothing: a network keeps no activations, model.activations(X) computes them",
    "first_init": "nothing: a network has no numbered states",
    "state_id": "nothing: a network has no numbered states",
    "grid_eps": "update_grid(X, adapt=1 - grid_eps)",
    "ckpt_path": "save(path) after training, nothing is written unasked",
    "auto_save": "save(path) after training, nothing is written unasked",
    "symbolic_enabled": "nothing: symbolic edges are always there",
    "affine_trainable": "nothing: nodes have no scale and bias, and a, b, c, d of symbolic edges are trained",
    "sparse_init": "remove_edge(l, i, j) for the edges to leave out",
    "opt": "optimizer='lm', 'lbfgs' or 'adam'",
    "lamb": "l1=",
    "lamb_l1": "l1=",
    "lamb_entropy": "entropy=",
    "lamb_coef": "coef_smoothness=",
    "lamb_coefdiff": "coef_smoothness=",
    "loss_fn": "loss=, with one value for each sample",
    "batch": "batch_size=",
    "metrics": "X_val= and y_val=: the returned history has both errors",
    "log": "progress=True",
    "save_fig": "plot(X).savefig(path) after training",
    "img_folder": "plot(X).savefig(path) after training",
    "save_fig_freq": "plot(X).savefig(path) after training",
    "folder": "plot(X).savefig(path)",
    "display_metrics": "progress=True",
    "grid_update_num": "update_grid=True, once a stage",
    "start_grid_update_step": "update_grid=True, once a stage",
    "stop_grid_update_step": "update_grid=True, once a stage",
    "singularity_avoiding": "nothing: a network that has no value on the data is refused",
    "y_th": "nothing: a network that has no value on the data is refused",
    "reg_metric": "l1=, on the standard deviations of edges",
    "fit_params_bool": "nothing: a, b, c, d are fitted where samples X are given",
    "fun_name": "function=",
    "a_range": "nothing: a and b are searched over all of their range",
    "b_range": "nothing: a and b are searched over all of their range",
    "normalizer": "KANRegressor, whose formulas are in the units of the table",
    "output_normalizer": "KANRegressor, whose formulas are in the units of the table",
    "in_vars": "variables=",
    "out_vars": "outputs=",
    "var": "variables=",
    "lib": "library=",
    "topk": "top=",
    "new_grid": "grid_size=",
    "node_th": "node_threshold=",
    "edge_th": "edge_threshold=",
}
# Methods and attributes of a model.
NAMES = {
    "predict": "model(X)",
    "train_kan": "model.fit(X, y)",
    "swap": "nothing: the order of nodes has no meaning",
    "auto_swap": "nothing: the order of nodes has no meaning",
    "auto_swap_l": "nothing: the order of nodes has no meaning",
    "tree": "kat_zoo.kan.operations.structure.detect_separability(model, X)",
    "perturb": "model.expand_width(l, n_sum), or model.restore_edge(l, i, j)",
    "feature_interaction": "kat_zoo.kan.operations.structure.detect_separability(model, X)",
    "initialize_grid_from_another_model": "model.refine(grid_size)",
    "initialize_from_another_model": "model.refine(grid_size)",
    "update_grid_from_samples": "model.update_grid(X)",
    "evaluate": "model(X), to compare with y",
    "copy": "copy.deepcopy(model)",
    "set_mode": "model.fix_symbolic, model.unfix or model.remove_edge for an edge",
    "disable_symbolic_in_fit": "nothing: symbolic edges are always there",
    "augment_input": "model.fit of a table with further columns",
    "symbolic_formula": "model.formula(variables)",
    "saveckpt": "model.save(path)",
    "loadckpt": "KAN.load(path)",
    "log_history": "copy.deepcopy(model) before a step, to go back to",
    "history": "copy.deepcopy(model) before a step, to go back to",
    "rewind": "copy.deepcopy(model) before a step, to go back to",
    "checkout": "copy.deepcopy(model) before a step, to go back to",
    "prune_node": "model.prune(X)",
    "prune_edge": "model.prune(X)",
    "prune_input": "model.prune_inputs(X)",
    "suggest_symbol": "model.suggest_symbolic(l, i, j, X)",
    "unfix_symbolic": "model.unfix(l, i, j, X)",
    "unfix_symbolic_all": "model.unfix(l, i, j, X) for the edges of model.edges()",
    "get_fun": "model.edge(l, i, j)",
    "get_act": "model.activations(X)",
    "get_range": "model.activations(X)",
    "reg": "model.fit(..., l1=, entropy=)",
    "get_reg": "model.fit(..., l1=, entropy=)",
    "get_params": "model.parameters()",
    "act_fun": "model.layers[l].spline",
    "symbolic_fun": "model.layers[l].affine and .function",
    "feature_score": "model.attribute(X).inputs",
    "node_attribute": "model.attribute(X).nodes",
    "node_scores": "model.attribute(X).nodes",
    "edge_scores": "model.attribute(X).edges",
    "speed": "nothing: the splines are fast as they are",
    "module": "model.remove_edge(l, i, j) for the edges between modules",
    "connection_cost": "nothing: fit(..., l1=) makes a network sparse",
    "n_edge": "model.num_edges()",
    "width_in": "model.nodes",
    "width_out": "model.layers[l].spline.out_features",
    "n_sum": "model.width, pairs (n_sum, n_mult)",
    "n_mult": "model.width, pairs (n_sum, n_mult)",
}


def refuse_arguments(given: Iterable[str], known: Iterable[str]) -> None:
    """Answer keyword arguments that a function does not have.

    Args:
        given: names of the arguments.
        known: names of the arguments that the function has.

    Raises:
        TypeError: there is one; the message tells the words to write.
    """
    for name in given:
        if name in ARGUMENTS:
            raise TypeError(f"{name}= is pykan's: expected {ARGUMENTS[name]}")
        close = difflib.get_close_matches(name, list(known), 1)
        raise TypeError(f"unexpected argument {name}={f': expected {close[0]}=' if close else ''}")


def answers_words(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose unknown keyword arguments are answered as `refuse_arguments` does.

    Args:
        function: the function, without `**` of its own.
    """
    known = set(inspect.signature(function).parameters)

    @functools.wraps(function)
    def answering(*args: P.args, **options: P.kwargs) -> R:
        refuse_arguments([name for name in options if name not in known], known)
        return function(*args, **options)

    return answering


def hint(name: str) -> str:
    """The words for a name of pykan's models, as the end of a message; empty where there are none."""
    return f"; {name} is pykan's: expected {NAMES[name]}" if name in NAMES else ""


def refuse_dataset(X: Any) -> None:
    """Answer pykan's dictionary of samples.

    Args:
        X: samples, or that dictionary.

    Raises:
        TypeError: it is the dictionary.
    """
    if isinstance(X, dict):
        keys = ", ".join(f"dataset[{key!r}]" for key in ("train_input", "train_label", "test_input", "test_label"))
        raise TypeError(f"X is a dict: expected fit({keys})")
