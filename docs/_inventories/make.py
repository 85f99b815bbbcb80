"""Names of other projects that our signatures have, as inventories for intersphinx: `python docs/_inventories/make.py`.

The whole inventories are megabytes and need a network; these hold only the names that `make docs` asks for.
"""

import zlib
from pathlib import Path

# Name -> (role, page relative to the root of that project's documentation; $ is the name itself, as in Sphinx).
PROJECTS = {
    "python": {
        **{
            f"collections.abc.{name}": ("class", "library/collections.abc.html#$")
            for name in ("Callable", "Collection", "Iterable", "Iterator", "Mapping", "Sequence")
        },
        "abc.ABC": ("class", "library/abc.html#$"),
        "collections.OrderedDict": ("class", "library/collections.html#$"),
        "pathlib.Path": ("class", "library/pathlib.html#$"),
    },
    "torch": {
        "torch.Tensor": ("class", "tensors.html#$"),
        "torch.device": ("class", "tensor_attributes.html#$"),
        "torch.dtype": ("class", "tensor_attributes.html#$"),
        "torch._C.Generator": ("class", "generated/torch.Generator.html#torch.Generator"),
        "torch.nn.modules.container.Sequential": ("class", "generated/torch.nn.Sequential.html#torch.nn.Sequential"),
        "torch.nn.modules.module.Module": ("class", "generated/torch.nn.Module.html#torch.nn.Module"),
    },
    "numpy": dict.fromkeys(("np.ndarray", "numpy.ndarray"), ("class", "reference/generated/numpy.ndarray.html#numpy.ndarray")),
    "sympy": {"sympy.core.expr.Expr": ("class", "modules/core.html#$")},
    "matplotlib": {"Figure": ("class", "api/figure_api.html#matplotlib.figure.Figure")},
    "sklearn": {
        f"sklearn.base.{name}": ("class", "modules/generated/$.html#$") for name in ("BaseEstimator", "ClassifierMixin", "RegressorMixin")
    },
}


def main() -> None:
    """Write an inventory for each project, in version 2 of Sphinx's format."""
    for project, names in PROJECTS.items():
        lines = "".join(f"{name} py:{role} 1 {page} -\n" for name, (role, page) in sorted(names.items()))
        header = (
            f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The remainder of this file is compressed using zlib.\n"
        )
        Path(__file__).with_name(f"{project}.inv").write_bytes(header.encode() + zlib.compress(lines.encode(), 9))


if __name__ == "__main__":
    main()
