"""A session without a page: steps, undo and redo, the history, and a script that repeats all of it."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Mapping
from typing import Any

from .._checks import choice
from .outcome import Outcome, Report, Step
from .state import State
from .steps import STEPS

MOST_STEPS = 200  # steps that can be undone; the oldest states go
VERSION = 1

HEAD = '''"""Every step of a session of kat-zoo explore, with the same calls."""

import numpy as np

from kat_zoo.explore import example_table, read_table
from kat_zoo.kan import KAN, KANRegressor
from kat_zoo.kan.formula.expression import formula
from kat_zoo.kan.sklearn.rows import split
'''
TAIL = """
names = [f"x_{i + 1}" for i in range(X.shape[1])]
scales = dict(input_affine=list(zip(1 / half, -center / half)), output_affine=[(spread, shift)])
print(formula(model, names, 4, A[train], **scales)[0])
error = (model(model.tensor(A[check])).detach().numpy() - B[check]) * spread
print(f"held-out error {np.sqrt(np.mean(error**2)) / (np.std(Y[check]) or 1.0):.3e} of the target's standard deviation")
"""


class Session:
    """The steps of a user. `do` makes one; every state before it is kept.

    Attributes:
        steps: steps so far, also those that were undone.
        states: state before the first step, then after each.
        position: number of steps that are not undone.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.states: list[State] = [State()]
        self.position = 0
        self.dropped: list[Step] = []

    @property
    def state(self) -> State:
        """The present state."""
        return self.states[self.position]

    def do(self, name: str, options: Mapping[str, Any] | None = None, report: Report | None = None) -> State:
        """Make a step; steps that were undone are forgotten.

        Args:
            name: name of the step, as in `kat_zoo.explore.steps.STEPS`.
            options: keyword arguments of the step, as JSON holds them.
            report: function that takes news of its progress; after a part of a training they hold the session as if it had ended there.

        Raises:
            ValueError: an unknown step, options it does not have, or values that make no sense; the session stays as it was.
        """
        function = STEPS[choice("step", name, tuple(STEPS))]
        if options is not None and not isinstance(options, Mapping):
            raise ValueError(f"step {name!r} with options={options!r:.40}: expected names and values")
        given = dict(options or {})
        try:
            inspect.signature(function).bind(None, None, **given)
        except TypeError as error:
            raise ValueError(f"step {name!r}: expected other options ({error})") from None

        def relay(news: dict[str, Any]) -> None:
            if report is not None:
                outcome = news.pop("outcome", None)
                report(news if outcome is None else {**news, "session": self._with(name, given, outcome)})

        try:
            outcome = function(self.state, relay, **given)
        except (TypeError, AttributeError, LookupError, OverflowError) as error:  # values of another kind than JSON of the page has
            raise ValueError(f"step {name!r}: expected other values ({error})") from error
        self.__dict__.update(self._with(name, given, outcome).__dict__)
        return self.state

    def _with(self, name: str, options: dict[str, Any], outcome: Outcome) -> Session:
        """This session and one step more."""
        new = Session()
        step = Step(name, options | (outcome.options or {}), outcome.text, tuple(outcome.code))
        new.steps = [*self.steps[: self.position], step]
        new.states = [*self.states[: self.position + 1], outcome.state]
        new.dropped, extra = self.dropped, max(len(new.steps) - MOST_STEPS, 0)
        if extra:
            new.dropped, new.steps, new.states = [*self.dropped, *new.steps[:extra]], new.steps[extra:], new.states[extra:]
        new.position = len(new.steps)
        return new

    def go(self, position: int) -> State:
        """Undo or redo to a position of the history.

        Args:
            position: number of steps that are to count.

        Raises:
            ValueError: no such position.
        """
        if not isinstance(position, int) or not 0 <= position <= len(self.steps):
            raise ValueError(f"position={position!r}: expected an integer from 0 to {len(self.steps)}")
        self.position = position
        return self.state

    def undo(self) -> State:
        """Take the last step back, if there is one."""
        return self.go(max(self.position - 1, 0))

    def redo(self) -> State:
        """Make the step again that was taken back last, if there is one."""
        return self.go(min(self.position + 1, len(self.steps)))

    def _that_count(self) -> list[Step]:
        """The steps that are not undone, from the last table on: what was before has no effect any more."""
        steps = [*self.dropped, *self.steps[: self.position]]
        starts = [n for n, step in enumerate(steps) if step.name.startswith("open_")]
        return steps[starts[-1] :] if starts else []

    def script(self) -> str:
        """Python that repeats the steps that are not undone, and prints the formula and its error."""
        lines = [HEAD]
        for step in self._that_count():
            lines += ["", "# " + " ".join(step.text.split()), *step.code]
        return "\n".join(lines) + "\n" + (TAIL if self.state.network is not None else "")

    def to_json(self) -> str:
        """The steps as text, from the last table on, by which `from_json` repeats them."""
        steps = [{"step": step.name, "options": step.options} for step in self._that_count()]
        return json.dumps({"kat_zoo_explore": VERSION, "steps": steps})

    @classmethod
    def from_json(cls, text: str, report: Report | None = None) -> Session:
        """A session that repeats the steps of another.

        Args:
            text: JSON of `to_json`.
            report: function that takes news of its progress.

        Raises:
            ValueError: another text, or a step that fails.
        """
        try:
            found = json.loads(text)
            version, steps = found["kat_zoo_explore"], [(one["step"], one["options"]) for one in found["steps"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError("the file is not a session: expected one that kat-zoo explore saved") from None
        if version != VERSION:
            raise ValueError(f"version={version!r:.20}: expected {VERSION}")
        session = cls()
        for name, options in steps:
            session.do(name, options, report)
        return session

    def to_bytes(self) -> bytes:
        """Everything, for another process of our own; never read such bytes from somebody else."""
        return pickle.dumps(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Session:
        """The session of `to_bytes`."""
        session: Session = pickle.loads(data)
        return session
