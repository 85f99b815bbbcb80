"""The steps of a session by their names. Each is a function from a state to the next."""

from collections.abc import Callable

from .editing import add_node, auto, fix, prune, remove_edge, remove_node, restore_edge, restore_node, unfix
from .opening import choose, open_example, open_file, open_network
from .outcome import Outcome
from .searching import search, take
from .training import train

STEPS: dict[str, Callable[..., Outcome]] = {
    function.__name__: function
    for function in (
        *(open_file, open_example, open_network, choose, train, prune, remove_edge, restore_edge),
        *(remove_node, restore_node, add_node, fix, unfix, auto, search, take),
    )
}
