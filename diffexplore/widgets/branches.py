"""`Branches`: the part of an `Explorer` that reaches into its runs: branches beside their parents, marks on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import traitlets

from diffexplore.widgets.reach import Reach, remarked

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.runs.plan import Plan
    from diffexplore.settings import Settings
    from diffexplore.trace import Trace
    from diffexplore.widgets.runner import Runner
    from diffexplore.widgets.viewer import Viewer

__all__ = ["Branches"]


class Branches(traitlets.HasTraits):  # type: ignore[misc]
    """What an `Explorer` does with a run that goes its own way from a step on."""

    model: Model
    viewer: Viewer
    _runner: Runner
    _pair: tuple[Plan, Plan] | None = None  # a run and its branch, while they stand beside each other

    @property
    def trace(self) -> Trace | None:
        """The run on show."""
        raise NotImplementedError

    @property
    def settings(self) -> Settings:
        """What the controls say."""
        raise NotImplementedError

    def branch(self, at: int, **changes: Any) -> None:
        """Let the run on show go its own way from evaluation `at`, and show both beside each other; returns at once.

        Args:
            at: Counted from 0.
            **changes: What holds from there on, of `settings.CHANGING`.

        Raises:
            ValueError: One sentence: there is no run, no such evaluation, or what cannot change on the way.
        """
        if self.trace is None:
            raise ValueError("there is no run to branch: press Run first")
        self._fork(self.trace, at, changes)

    def _reaching(self) -> Reach:
        """What hears a page that reaches in."""
        return Reach(self.viewer, self._runner.traces_of, self._fork, self._put, self._runner.quietly)

    def _fork(self, trace: Trace, at: int, changes: Mapping[str, Any]) -> None:
        """Run a branch, with its parent beside it; the controls then say the branch's settings."""
        plan = self.model.planner.branch(trace, at, **changes)
        before = self.model.planner.plan(trace.settings, trace.extra)
        self._runner.start(plans={"branch": plan}, beside={"parent": trace})
        self._pair = before, plan
        self._follow(plan.settings)
        self._runner.say_truth()

    def _paired(self, asked: Settings) -> dict[str, Plan] | None:
        """A run and its branch, while the controls say what the branch draws."""
        if self._pair and asked == self._pair[1].settings:
            return dict(zip(("parent", "branch"), self._pair, strict=True))
        return None

    def _put(self, mark: float | None, values: dict[str, Any], old: float | None) -> None:
        """Another mark on the way of what the controls say, or one less; and run that."""
        self.set_trait("changes", remarked(self.settings, mark, values, old))
        self._runner.start()

    def _follow(self, settings: Settings) -> None:
        """Let the controls say settings that are run already."""
        raise NotImplementedError
