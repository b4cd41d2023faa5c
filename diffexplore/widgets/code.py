"""The Python that makes a run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffexplore.runs.edits import as_code as edit_as_code
from diffexplore.settings import Settings, as_dict
from diffexplore.widgets.extras import as_code

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["code_of"]


def code_of(
    model: Model,
    settings: Settings,
    plain: Settings,
    extra: Mapping[str, Any],
    *,
    attention: bool,
    moves: bool,
    branch: Mapping[str, Any] | None = None,
) -> str:
    """Python that makes the same run, with the model that `Model.code` opens.

    Args:
        model: what draws.
        settings: what, every None filled in.
        plain: what is drawn where nothing is asked for: of what is equal there only the usual settings are written.
        extra: what is handed to the pipeline beyond settings.
        attention: whether the run keeps where words look.
        moves: whether it is a video or a sound, which no still picture shows.
        branch: what a branch tells of its parent, where settings alone do not make it again.
    """
    chain: list[Mapping[str, Any]] = []
    while branch:
        chain.insert(0, branch)
        branch = branch["parent"]
    if chain:
        settings = Settings(**chain[0]["settings"])
    values = {"prompt": settings.prompt} | {name: one for name, (one, _) in settings.diff(plain).items()}
    if settings.changes:
        values["changes"] = {mark: dict(fields) for mark, fields in settings.changes}
    if settings.skips:
        values["skips"] = as_dict(settings.skips)
    always = {name: getattr(settings, name) for name in ("steps", "guidance", "seed", "sampler")}
    looks = {"attention": True} if attention else {}
    own = {name: value for name, value in (values | always | looks).items() if name not in extra}
    arguments = "".join(f"    {name}={value!r},\n" for name, value in own.items())
    opens, handed = as_code(extra)
    shown = "dx.Replay(trace)" if moves else "trace.image"
    made = f"trace = model.trace(\n{arguments}{handed})\n" + "".join(map(_left, chain))
    return f"import diffexplore as dx\n{opens}\n{model.code()}{made}{shown}\n"


def _left(told: Mapping[str, Any]) -> str:
    """Python in which a branch leaves the run before."""
    given, edit = [f"at={told['at']}"], told.get("edit")
    lines = ""
    if edit:
        given.append(f"latents={edit_as_code(edit)}")
        if "other" in edit:
            lines = f"other = model.trace(dx.Settings(**{edit['other']['settings']!r}))\n"
            if "parent" in edit["other"]:
                lines = f"# The other run was itself a branch: {edit['other']['parent']!r}\n{lines}"
    elif told["latents"]:
        given.append("latents=edited")
    given += [f"{name}={value!r}" for name, value in told["changes"].items()]
    return f"{lines}trace = model.branch(trace, {', '.join(given)})\n"
