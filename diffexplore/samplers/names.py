"""The menu's name for what others call a sampler, and what to say of a name that is none."""

import re
from collections.abc import Iterable
from typing import Final

from diffexplore.samplers.came import AS_IT_CAME
from diffexplore.samplers.menu import SAMPLERS
from diffexplore.words import near, shown

__all__ = ["named", "scheduled", "unknown"]

# What "Automatic" stands for in AUTOMATIC1111's program and its kin: the schedule each of its samplers was published
# with (modules/sd_samplers_kdiffusion.py); for all others it is the plain one.
_AUTOMATIC: Final = {
    "DPM++ 2M": "Karras",
    "DPM++ SDE": "Karras",
    "DPM++ 2S a": "Karras",
    "DPM++ 2M SDE": "Exponential",
    "DPM++ 2M SDE Heun": "Exponential",
    "DPM++ 3M SDE": "Exponential",
    "DPM2": "Karras",
    "DPM2 a": "Karras",
    "Restart": "Karras",
}

_SCHEDULES: Final = ("Automatic", "Uniform", "Karras", "Exponential", "Beta")


def named(value: object) -> str | None:
    """The menu's name of a sampler, also for the spellings of k-diffusion, ComfyUI and A1111, such as
    ``dpmpp_2m_karras``, ``sample_euler_ancestral`` or ``dpm++ 2m sde``; None for a `value` that is no such name.

    Only the spelling is read: a sampler that the menu has not, such as ``dpmpp_2s_ancestral``, is never taken for a
    similar one. The pipeline's own scheduler is "as it came", also with what a menu says behind it ("as it came:
    Euler, leading").
    """
    if not isinstance(value, str) or len(value) > 100:
        return None
    if _spelling(value.partition(":")[0]) == _spelling(AS_IT_CAME):
        return AS_IT_CAME
    return value if value in SAMPLERS else _BY_SPELLING.get(_spelling(value))


def unknown(value: object, right: Iterable[str] = (AS_IT_CAME, *SAMPLERS)) -> str:
    """One sentence that refuses a `value` which names no sampler, with the nearest of those names that are `right`."""
    suggested = near(value, right)
    # What suggests nothing at least shows what names look like.
    some = "" if suggested else " such as 'Euler' or 'DPM++ 2M Karras'"
    return (
        f"sampler must be one of the names in diffexplore.SAMPLERS{some}, or {AS_IT_CAME!r}; "
        f"got {shown(value)}{suggested}"
    )


def scheduled(name: str, schedule: str) -> tuple[str, list[str]]:
    """A sampler of the menu for a name and, in newer programs, the schedule apart: "DPM++ 2M" and "Karras".

    Returns:
        The menu's name, or `name` where the menu has none; and what is to be said of a schedule that is not here.
    """
    name = named(name) or name
    wanted = next((one for one in _SCHEDULES if one.lower() == schedule.lower()), schedule)
    if wanted == "Automatic":
        wanted = _AUTOMATIC.get(name, "")
    if wanted in ("", "Uniform"):
        return name, []
    if f"{name} {wanted}" in SAMPLERS:
        return f"{name} {wanted}", []
    if name.endswith(f" {wanted}"):  # told twice
        return name, []
    return name, [f"no {shown(name)[1:-1]} here has the noise levels {shown(wanted)}, it is drawn with its plain ones"]


def _spelling(name: str) -> str:
    words = [word for word in re.split(r"[\s_-]+", name.lower()) if word]
    if len(words) > 1 and words[0] in ("sample", "k"):  # functions of k-diffusion, and its names elsewhere
        words = words[1:]
    words = [word.replace("pp", "++") for word in words if word != "gpu"]  # ComfyUI says where noise is drawn
    return "".join("a" if word == "ancestral" else word for word in words)


_BY_SPELLING = {_spelling(name): name for name in SAMPLERS} | {
    "unipcbh2": "UniPC",
}
