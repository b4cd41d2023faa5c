"""`Leveled`: the part of an `Explorer` that shows the noise levels of the next run, and hears what a hand does to them.

The page (``browser/panels/levels.js``) asks, and hears by the traits what became of it::

    {"kind": "levels", "act": act, "value": value}

``act`` is "set" (these levels), "way" (those of one of `samplers.WAYS`, "" for the sampler's own) or "fresh" (this
share of fresh noise, None for the sampler's own). The viewer's trait ``levels`` holds what there is to show::

    {"sigmas": [...], "plain": [...], "own": bool, "way": name, "ways": [[name, sentence], ...], "low": x, "high": y,
     "flow": bool, "guess": bool, "why": sentence, "fresh": x or None, "adds": x or None, "most": x, "dry": sentence}

with the levels of the next run, those of its sampler by itself (``plain``; with ``guess`` its pipeline makes them when
it is called, and these are training's), whether they are ones of its own, and the range that a level may be in; ``why``
says why there are none, ``dry`` why no share of fresh noise can be asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from diffexplore.samplers.spacings import WAYS, Levels, resampled
from diffexplore.widgets.feed import LEVELS
from diffexplore.words import sentence

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.settings import Settings
    from diffexplore.widgets.runner import Runner
    from diffexplore.widgets.viewer import Viewer

__all__ = ["Leveled", "Setting"]


class Setting(traitlets.Any):  # type: ignore[misc]
    """Anything, because `Settings` does the checking, and says what is accepted; None too, which traitlets would let
    pass unchecked."""

    allow_none = False


class Leveled(traitlets.HasTraits):  # type: ignore[misc]
    """What an `Explorer` does with noise levels: as many as there are steps, whichever of the two is moved."""

    model: Model
    viewer: Viewer
    steps: int
    sampler: str
    sigmas = Setting(None, help="Noise levels in place of the sampler's own, highest first.")
    fresh_noise = Setting(None, help="How much of the noise of each next level is drawn anew; None: as the sampler is.")
    _runner: Runner
    _way: tuple[str, Levels] | None = None  # how levels were spaced, and what came of it
    _known: tuple[Any, dict[str, Any]] | None = None  # what was found of a sampler and a number of steps

    def _leveling(self) -> None:
        """Hear the page from now on."""
        self.viewer.on_msg(self._leveled)

    def _leveled(self, _: Any, content: Any, __: Any) -> None:
        if isinstance(content, dict) and content.get("kind") == LEVELS:
            self._runner.quietly(lambda: self._level(content.get("act"), content.get("value")))

    def _level(self, act: Any, value: Any) -> None:
        if act == "fresh":
            self.set_trait("fresh_noise", value)
        elif act == "way" and value:
            levels = self.model.levels(value, self.steps, sampler=self.sampler)
            self._way = value, levels
            self.set_trait("sigmas", levels)
        elif act in ("set", "way"):
            self.set_trait("sigmas", value or None)

    def _fitting(self, name: str, value: Any, others: dict[str, Any]) -> dict[str, Any]:
        """Other settings, without what no longer holds where one has changed."""
        if name == "sigmas" and value is not None:
            del others["steps"]
        elif name == "steps" and others["sigmas"] is not None and len(others["sigmas"]) != value:
            others["sigmas"] = None
        return others

    def _keep_step(self, name: str, value: Any) -> None:
        """Let levels follow steps, and steps levels."""
        if name == "sigmas" and value is not None and len(value) != self.steps:
            self.set_trait("steps", len(value))
        elif name == "steps" and self.sigmas is not None and len(self.sigmas) != value:
            way = self._spaced(self.sigmas)
            levels = self.model.levels(way, value, sampler=self.sampler) if way else resampled(self.sigmas, value)
            self._way = (way, levels) if way else None
            self.set_trait("sigmas", levels)

    def _spaced(self, sigmas: Levels | None) -> str:
        """How levels were spaced; "" where a hand did it."""
        return self._way[0] if self._way is not None and self._way[1] == sigmas else ""

    def _say_levels(self, settings: Settings) -> None:
        """Show the levels of the next run."""
        asked, sampler = settings.sigmas, str(settings.sampler)
        key = sampler, settings.steps
        if self._known is None or self._known[0] != key:
            self._known = key, self._found(sampler, settings.steps)
        found = self._known[1]
        told = {"sigmas": list(asked or found.get("plain", ())), "own": asked is not None, "way": self._spaced(asked)}
        self.viewer.offer({**found, **told, "fresh": settings.fresh_noise})

    def _found(self, sampler: str, steps: int) -> dict[str, Any]:
        schedules, fixed = self.model.planner.schedules, self.model.fixed(sampler)
        found: dict[str, Any] = {"why": fixed.get("sigmas", ""), "dry": fixed.get("fresh_noise", "")}
        if not found["dry"]:
            one = schedules.no_fresh(sampler, 1.5)
            found |= {"adds": schedules.adds(sampler), "most": 1.0 if one else 1.5}
        if found["why"]:
            return found
        try:
            span = schedules.range(sampler)
            found |= {"low": span.low, "high": span.high, "flow": span.flow}
            found["ways"] = [[name, way.sentence] for name, way in WAYS.items()]
            try:
                found["plain"] = list(schedules.levels(sampler, steps))
            except ValueError:  # its pipeline makes them when it is called
                found["plain"] = list(WAYS["as trained"].make(span, steps))
                found["guess"] = True
        except Exception as error:  # a scheduler that nobody knows may want to be told more
            found["why"] = f"Its noise levels are not known before a run: {sentence(error).rstrip('.')}."
        return found
