"""`Branches`: the part of an `Explorer` that reaches into its runs: branches beside their parents, marks on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import traitlets

from diffexplore.runs.branch import edited_at
from diffexplore.runs.edits import Touch
from diffexplore.settings import Settings, in_words
from diffexplore.widgets.kin import MOST, Kin
from diffexplore.widgets.reach import Reach, remarked

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.runs.branch import Edit
    from diffexplore.runs.plan import Plan
    from diffexplore.trace import Trace
    from diffexplore.widgets.runner import Jobs, Runner
    from diffexplore.widgets.viewer import Viewer

__all__ = ["Branches"]


class Branches(traitlets.HasTraits):  # type: ignore[misc]
    """What an `Explorer` does with a run that goes its own way from a step on. The newest `kin.MOST` runs that are
    branches, or have some, are kept."""

    model: Model
    viewer: Viewer
    extra: Mapping[str, Any]
    _runner: Runner
    _kin: Kin
    _pair: tuple[Plan, Plan] | None = None  # a run and its branch, while they stand beside each other

    @property
    def trace(self) -> Trace | None:
        """The run on show."""
        raise NotImplementedError

    @property
    def settings(self) -> Settings:
        """What the controls say."""
        raise NotImplementedError

    @property
    def branched(self) -> dict[int, Trace]:
        """The runs that are branches or have some, by the number that they have in the tab "Reach in": the newest 12,
        see `kin`."""
        return self._kin.traces

    def branch(self, at: int, latents: Edit = None, **changes: Any) -> None:
        """Let the run on show go its own way from evaluation `at`, and show both beside each other; returns at once.

        Args:
            at: Counted from 0.
            latents: What it leaves with, or a function of what it has there, such as those of `dx.edits`.
            **changes: What holds from there on, of `settings.CHANGING`.

        Raises:
            ValueError: One sentence: there is no run, no such evaluation, or what cannot change on the way.
        """
        if self.trace is None:
            raise ValueError("there is no run to branch: press Run first")
        self._fork(self.trace, at, changes, latents)

    def _reaching(self) -> Reach:
        """What hears a page that reaches in."""
        self._kin = Kin()
        return Reach(
            self.viewer, self._runner.traces_of,
            branch=self._fork, put=self._put, show=self._revisit,
            kept=lambda number: self._kin[number].trace, quietly=self._runner.quietly,
        )  # fmt: skip

    def _fork(self, trace: Trace, at: int, changes: Mapping[str, Any], latents: Edit = None) -> None:
        """Run a branch, with its parent beside it; the controls then say the branch's settings."""
        plan = self.model.planner.branch(trace, at, latents, **changes)
        before = self.model.planner.plan(trace.settings, trace.extra)
        parent = self._kin.of(trace)
        jobs, _ = self._runner.start(plans={"branch": plan}, beside={"parent": trace})
        if parent is None:
            parent = self._kin.add(trace, before, in_words([("prompt", trace.settings.prompt)]), self.extra)
        own = Settings(**changes)
        words = [in_words((name, getattr(own, name)) for name in changes)] if changes else []
        if latents is not None:
            words.append(latents.words if isinstance(latents, Touch) else "edited latents")
        self._kin.add(jobs["branch"].trace, plan, ", ".join(words) or "nothing changed", self.extra, parent, int(at))
        self._pair = before, plan
        self._follow(plan.settings, self.extra)
        self._say_kin()
        self._runner.say_truth()

    def _revisit(self, number: object) -> None:
        """Show a run that is kept, beside the one that it left; the controls then say its settings."""
        one = self._kin[number]
        kept = one.parent in self._kin.traces
        parent = self._kin[one.parent] if kept else None
        beside = {"parent": parent.trace, "branch": one.trace} if parent is not None else {"": one.trace}
        self._runner.show(beside)
        self._pair = None if parent is None else (parent.plan, one.plan)
        self._follow(one.plan.settings, one.extra)
        self._say_kin()
        self._runner.say_truth()

    def _say_kin(self, jobs: Jobs | None = None) -> None:
        """Tell the page which runs are kept, when the newest `jobs` are over without those that came to nothing."""
        self._kin.drop(job.trace for job in (jobs or {}).values() if not len(job.trace) and job.trace.image is None)
        on = [one.number for trace in self._runner.traces.values() if (one := self._kin.of(trace)) is not None]
        scales = dict(self.settings.adapters)
        loras = [[name, scales.get(name, 0.0)] for name in self.model.adapters]
        told = {"nodes": self._kin.told(), "on": on, "most": MOST, "loras": loras}
        if told != self.viewer.branches:
            self.viewer.branches = told

    def _paired(self, asked: Settings) -> dict[str, Plan] | None:
        """A run and its branch, while the controls say what the branch draws."""
        if self._pair and asked == self._pair[1].settings:
            return dict(zip(("parent", "branch"), self._pair, strict=True))
        return None

    def _untold(self) -> Mapping[str, Any] | None:
        """What the branch on show tells of its parent, where its settings alone do not make it again."""
        trace = self.trace
        if trace is None or self._paired(self.settings) is None or not edited_at(trace):
            return None
        found: Mapping[str, Any] = trace.info["parent"]
        return found

    def _put(self, mark: float | None, values: dict[str, Any], old: float | None) -> None:
        """Another mark on the way of what the controls say, or one less; and run that."""
        self.set_trait("changes", remarked(self.settings, mark, values, old))
        self._runner.start()

    def _follow(self, settings: Settings, extra: Mapping[str, Any]) -> None:
        """Let the controls say what is run already."""
        raise NotImplementedError
