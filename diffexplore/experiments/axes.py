"""What a sweep or a comparison may vary: a field of settings, or one thing within one, by a path.

``steps`` is a field; ``changes.0.4.prompt`` the prompt from a share of noise of 0.4 on; ``adapters.style`` the scale of
the LoRA "style", ``changes.0.4.adapters.style`` its scale from there on.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from diffexplore.settings import CHANGING, Settings
from diffexplore.words import near, shown

__all__ = ["Axis", "axis_of"]

_MARKED: Final = re.compile(r"changes\.(\d+(?:\.\d+)?(?:e-\d+)?|\.\d+)\.([A-Za-z_]+)(?:\.(.+))?", re.DOTALL)
_ON_THE_WAY: Final = "changes.SHARE.FIELD, such as changes.0.4.prompt"


@dataclass(frozen=True)
class Axis:
    """One thing that settings say.

    Attributes:
        field: of settings.
        mark: of a change on the way, its share of noise; None for what holds from the start.
        what: of a change on the way, the field that it is of.
        adapter: of a LoRA's scale, its name.
    """

    field: str
    mark: float | None = None
    what: str = ""
    adapter: str = ""

    def put(self, settings: Settings, value: Any) -> Settings:
        """The same settings with another value there; what else they say stays.

        Raises:
            ValueError: one sentence, for a value that makes no sense.
        """
        if self.mark is None:
            value = {**dict(settings.adapters), self.adapter: value} if self.adapter else value
            return settings.replace(**{self.field: value})
        told = {mark: dict(fields) for mark, fields in settings.changes}
        own = told.setdefault(self.mark, {})
        if self.adapter:
            now = [stage for mark, stage in settings.stages() if mark >= self.mark][-1]
            value = {**dict(now.adapters), self.adapter: value}
        own[self.what] = value
        return settings.replace(changes=told)

    def of(self, settings: Settings) -> Any:
        """The value there; None where these settings say nothing of it."""
        if self.mark is None:
            found = getattr(settings, self.field)
        else:
            found = dict(dict(settings.changes).get(self.mark, ())).get(self.what)
        return dict(found or ()).get(self.adapter) if self.adapter else found

    def overlaps(self, other: "Axis") -> bool:
        """Whether putting a value there puts one here."""
        if self.field != other.field or any(one.mark is None and not one.adapter for one in (self, other)):
            return self.field == other.field
        apart = self.adapter and other.adapter and self.adapter != other.adapter
        return (self.mark, self.what) == (other.mark, other.what) and not apart

    @property
    def words(self) -> str:
        """It, for a heading."""
        name = self.adapter or (self.what or self.field).replace("_", " ")
        return name if self.mark is None else f"{name} from {self.mark:.3g} on"


def axis_of(name: Any, before: str = "settings are") -> Axis:
    """What a path means.

    Args:
        name: the path.
        before: what a sentence begins with that says which there are.

    Raises:
        ValueError: one sentence, for a path to nothing.
    """
    known = Settings.model_fields
    if not isinstance(name, str):
        raise ValueError(f"{before} {', '.join(known)}; got {shown(name)}")
    if name in known:
        return Axis(name)
    head, dot, rest = name.partition(".")
    if head == "adapters" and rest:
        return Axis("adapters", adapter=rest)
    if head != "changes" or not dot:
        raise ValueError(
            f"{before} {', '.join(known)}, {_ON_THE_WAY}, and adapters.NAME; got {shown(name)}{near(name, known)}"
        )
    found = _MARKED.fullmatch(name)
    share = float(found[1]) if found else -1.0
    if found is None or not 0 <= share <= 1:
        raise ValueError(f"a change on the way is {_ON_THE_WAY}, with a share of noise from 0 to 1; got {shown(name)}")
    what, adapter = found[2], found[3] or ""
    if what not in CHANGING:
        raise ValueError(f"changes may be of {', '.join(CHANGING)}; got {shown(what)}{near(what, CHANGING)}")
    if adapter and what != "adapters":
        raise ValueError(f"only adapters have parts, as in changes.0.4.adapters.style; got {shown(name)}")
    return Axis("changes", share, what, adapter)
