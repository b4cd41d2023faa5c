"""The schedulers of one pipeline's runs: the one that came with it, as it stands, and those of the menu."""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from diffexplore.pipelines.family import Family
from diffexplore.runs.fresh import adds, dry
from diffexplore.runs.levels import Levels as Read
from diffexplore.runs.spaced import levels_of, said, span_of, stays, unfit
from diffexplore.samplers import AS_IT_CAME, FLOW, SAMPLERS, build, facts_of, native, suitable
from diffexplore.samplers.came import begin, changed, copied, described, noise_of, state_of
from diffexplore.samplers.spacings import Levels, Range
from diffexplore.words import sentence

__all__ = ["OF_THE_SEED", "Schedules"]

_USUAL = ("Euler", "DPM++ 2M", "Euler a", "DDIM", "Flow Euler")  # what one would take in place of another

OF_THE_SEED = (
    "The scheduler that came with this model adds noise on the way. A plain call of its pipeline draws it from torch's "
    "global generator, anew each time; here it is drawn from the run's seed, so that runs can be repeated."
)


class Schedules:
    """What a model offers to sample with.

    Attributes:
        came: the config of the scheduler that the pipeline had when it was opened, with its class: what the *model* is,
            as opposed to how somebody samples from it. Named samplers are made of it, however often schedulers change.
        default: the sampler it uses if none is asked for.
    """

    def __init__(
        self, family: Family, pipeline: Any, default: str | None = None, came: Mapping[str, Any] | None = None
    ) -> None:
        """What a pipeline can be sampled with.

        Args:
            family: of the `pipeline`.
            pipeline: the pipeline.
            default: what is used in place of its own scheduler if nothing is asked for.
            came: its config, if it is not as it came any more.
        """
        self._family = family
        self._pipeline = pipeline
        self.came: Mapping[str, Any] = dict(came) if came else self._facts()
        self.default = default or AS_IT_CAME
        self._now: tuple[Any, ...] = ()  # the scheduler that the pipeline had, and
        self._found: dict[Hashable, str] = {}  # what was found out about it

    def _facts(self) -> dict[str, Any]:
        scheduler = self.own
        facts = {**getattr(scheduler, "config", {}), "_class_name": type(scheduler).__name__}
        # This one moves without its config (set_shift).
        return facts | ({"shift": scheduler.shift} if hasattr(type(scheduler), "shift") else {})

    @property
    def own(self) -> Any:
        """The pipeline's scheduler, as it is now."""
        return getattr(self._pipeline, self._family.scheduler)

    @functools.cached_property
    def names(self) -> list[str]:
        """The samplers that are right here, in menu order; its own scheduler first, if that is the default."""
        if self._family.looked:
            return [AS_IT_CAME]  # what else is right for it, nobody knows
        named = [name for name in SAMPLERS if not suitable(name, self._family.name, self.came)]
        return [AS_IT_CAME, *named] if self.default == AS_IT_CAME else named

    def label(self, name: str) -> str:
        """What a menu calls a sampler."""
        return f"{AS_IT_CAME}: {described(self.own)}" if name == AS_IT_CAME else name

    def wrong(self, name: str) -> str:
        """Why a sampler cannot be used here, in a few words; "" if it can."""
        return "" if name == AS_IT_CAME else suitable(name, self._family.name, self.came)

    def refusal(self, name: str, steps: int) -> str:
        """Why a sampler cannot take so many steps, a sentence without a full stop; "" if it can."""
        if name != AS_IT_CAME:
            return SAMPLERS[name].refusal(steps, self.came)
        return self._once(("refusal", steps), lambda: self._refusal(steps))

    def _once(self, key: Hashable, find: Callable[[], str]) -> str:
        """What `find` finds of the scheduler that the pipeline has, found once: a plan is asked for at every move of a
        hand.
        """
        own = self.own
        now = own, getattr(own, "config", None), getattr(own, "shift", None)
        if not (self._now and self._now[0] is now[0] and self._now[1] is now[1] and self._now[2] == now[2]):
            self._now, self._found = now, {}
        found = self._found
        if len(found) > 500:  # a curve of levels was dragged
            found.clear()
        if key not in found:
            found[key] = find()
        return found[key]

    def _refusal(self, steps: int) -> str:
        made = copied(self.own)
        own = f"the scheduler that came with this model cannot take {steps} steps"
        try:
            begin(made, steps)
        except ValueError as error:
            return f"{own}: {sentence(error).rstrip('.')}"
        except Exception:  # it wants to be told more than the steps, which its pipeline will do
            return ""
        twin = native(self._family.name, self.came)
        refused = SAMPLERS[twin].refusal(steps, self.came) if twin else ""
        if refused and self.key(AS_IT_CAME) == twin:
            return refused
        facts = facts_of(made)
        if facts is not None and facts.levels == "timestep" and int(made.timesteps.max()) >= len(made.alphas_cumprod):
            last = len(made.alphas_cumprod) - 1
            return f"{own}: they begin at timestep {int(made.timesteps.max())}, and it knows those from 0 to {last}"
        return ""

    def abilities(self) -> dict[str, bool | str | None]:
        """Whether the steps of its own scheduler can be read: True, or one sentence why not, also for what needs
        them."""
        made = copied(self.own)
        try:
            begin(made, 4)
            Read(made)
        except ValueError as error:
            why = f"There are no steps to show: {sentence(error).rstrip('.')}."
            return {"steps": why, "split": why}
        except Exception:  # it wants to be told more than the steps, which its pipeline will do
            return {"steps": None}
        return {"steps": True}

    def evaluations(self, name: str, steps: int) -> int:
        """How often the model is evaluated for so many steps (both halves of guidance are one evaluation)."""
        if name != AS_IT_CAME:
            return SAMPLERS[name].evaluations(steps)
        made = copied(self.own)
        try:
            begin(made, steps)
            return len(made.timesteps)
        except Exception:  # what it says of these steps is for `refusal`
            return steps

    def notes(self, name: str) -> list[str]:
        """Plain sentences on what a sampler does otherwise than the one that came."""
        if name == AS_IT_CAME:
            return [OF_THE_SEED] if self._draws_unseeded() else []
        if self.default != AS_IT_CAME:
            return []
        said = self._once(("changed", name), lambda: changed(name, self.make(name), self.own))
        return [said] if said else []

    # Levels and noise of one's own

    def no_sigmas(self, name: str) -> str:
        """Why a sampler takes no noise levels of one's own, a sentence without a full stop; "" if it does."""
        return self._no("sigmas", name, stays, "takes no noise levels of one's own: it")

    def no_fresh(self, name: str, share: float = 1.0) -> str:
        """Why a sampler cannot be asked for a share of fresh noise, a sentence without a full stop; "" if it can."""
        return self._no(
            "fresh", name, lambda one: dry(one, share), f"cannot be asked for a fresh noise of {share:g}: it", share
        )

    def _no(self, what: str, name: str, ask: Callable[[Any], str], says: str, *key: Hashable) -> str:
        reason = self._once((what, name, *key), lambda: ask(self.make(name)))
        if not reason:
            return ""
        usual = [one for one in _USUAL if one in self.names]
        can = [
            one
            for one in usual
            if not self._once((what, one, *key), functools.partial(lambda one: ask(self.make(one)), one))
        ]
        others = f"; {', '.join(can[:3])} can" if can else ""
        return f"{self.label(name)} {says} {reason}{others}"

    def adds(self, name: str) -> float | None:
        """The share of fresh noise that a sampler adds by itself; None for one that cannot be asked for another."""
        return adds(self.make(name))

    def unfit(self, name: str, sigmas: Sequence[float]) -> str:
        """Why these levels are not for a sampler that takes some, a sentence without a full stop; "" if they are."""
        return self._once(("unfit", name, *sigmas), lambda: unfit(self.make(name), sigmas))

    def said(self, name: str, sigmas: Sequence[float]) -> list[str]:
        """Plain sentences on what a sampler makes of these levels, which are fit for it."""
        told = self._once(("said", name, *sigmas), lambda: "\n".join(said(self._begun(name, len(sigmas)), sigmas)))
        return told.splitlines()

    def levels(self, name: str, steps: int) -> Levels:
        """The noise levels that a sampler steps through by itself, as ``Settings.sigmas`` has them.

        Raises:
            ValueError: one sentence, where it takes none, or nobody knows them before a run.
        """
        reason = self.no_sigmas(name) or self.refusal(name, steps)
        if reason:
            raise ValueError(reason)
        made = self._begun(name, steps)
        by_size = made.config.get("use_dynamic_shifting") and len({*_shifts(made)}) > 1
        if self._family.spaces or by_size:
            raise ValueError(
                f"the pipeline hands {self.label(name)} its noise levels when it is called: take them from a run, as "
                "sigmas=[step.b for step in trace]"
            )
        return levels_of(made)

    def range(self, name: str) -> Range:
        """The noise levels that the model was trained on, as a sampler counts them.

        Raises:
            ValueError: one sentence, where the sampler takes no levels.
        """
        reason = self.no_sigmas(name)
        if reason:
            raise ValueError(reason)
        return span_of(self.make(name))

    def _begun(self, name: str, steps: int) -> Any:
        made = self.make(name)
        begin(made, steps, *_shifts(made)[:1])
        return made

    def _draws_unseeded(self) -> bool:
        """Whether its own scheduler adds noise that its pipeline's call takes from no generator it is given."""
        own, row = self.own, facts_of(self.own)
        noise = noise_of(type(own).__name__ if row is None else row.name, getattr(own, "config", {}))
        if noise == "path":
            return getattr(own, "noise_sampler_seed", None) is None
        # Flow pipelines hand their scheduler no generator, but for those that ask what it takes.
        return (
            noise == "fresh" and self._family.name in FLOW and not hasattr(self._pipeline, "prepare_extra_step_kwargs")
        )

    def make(self, name: str, seeds: Sequence[int] = (0,)) -> Any:
        """A new scheduler for a run, with nothing in it that anybody else has; `seeds` of its pictures."""
        seed = seeds[0] if len(seeds) == 1 else list(seeds)
        return copied(self.own, seed=seed) if name == AS_IT_CAME else build(name, self.came, seed=seed)

    def key(self, name: str) -> Hashable | None:
        """What stands for a sampler in the memory of this model's runs: equal keys, equal schedulers. The pipeline's
        own has the key of the named one that does the same.

        Returns:
            None where the scheduler holds something that cannot be seen.
        """
        if name != AS_IT_CAME:
            return name
        state = state_of(self.own)
        twin = native(self._family.name, self.came)
        return twin if twin and state is not None and state == state_of(self.make(twin)) else state


def _shifts(scheduler: Any) -> list[float]:
    """The ends of the range in which the size of a picture shifts the levels of a scheduler."""
    config = getattr(scheduler, "config", {})
    return [float(config[name]) for name in ("base_shift", "max_shift") if isinstance(config.get(name), (int, float))]
