"""Which sampler is right for which pipeline, and why not."""

from collections.abc import Mapping
from typing import Any

from diffexplore.samplers.menu import SAMPLERS
from diffexplore.samplers.nets import FLOW, SCALING, SPACINGS, blind, cosine, net_of, prediction_of, zero_snr
from diffexplore.samplers.sampler import Sampler

__all__ = ["native", "suitable"]


def suitable(name: str, family: str, base_config: Mapping[str, Any]) -> str:
    """ "" if a sampler of the menu is right for a pipeline and can run here, else why not, in a few words.

    Args:
        name: a key of :data:`SAMPLERS`.
        family: of the pipeline: "sd", "sdxl", "pixart", "kandinsky3", "lcm", "sd3", "flux", "sana", "zimage" or
            "qwen".
        base_config: the ``scheduler.config`` that came with the pipeline, ``_class_name`` included: the class
            tells how its net was trained.
    """
    entry = SAMPLERS[name]
    reason = _wrong_net(entry, family, base_config) or _wrong_family(entry, family)
    if reason:
        return reason
    prediction = prediction_of(base_config)
    if prediction not in entry.predictions:
        return f"it cannot read a net that predicts {prediction!r}"
    if (
        entry.net in ("diffusion", "lcm", "tcd")
        and blind(base_config)
        and entry.config.get("timestep_spacing") != "leading"
    ):
        return (
            "it starts from pure noise (zero terminal SNR), where a net that predicts noise tells nothing of a picture"
        )
    if entry.net == "diffusion":
        if zero_snr(base_config) and not entry.zero_snr:
            return "it cannot start from the pure noise (zero terminal SNR) that this net was trained on"
        if zero_snr(base_config) and entry.config.get("timestep_spacing") == "trailing":
            return f"for this net {name.removesuffix(' Trailing')} already steps that way"
        if cosine(base_config) and entry.respaced:
            return "its spacing would spend most steps on the steep end of this net's cosine noise schedule"
    if entry.net == "edm" and float(base_config.get("sigma_data", 0.5)) != 0.5:
        return "it assumes data of standard deviation 0.5, which is not what this net was trained on"
    if entry.net == "flow":
        reason = _wrong_shift(entry, base_config)
        if reason:
            return reason
    if entry.missing:
        return f"it needs {' and '.join(entry.missing)}, which is not installed"
    return ""


def native(family: str, base_config: Mapping[str, Any]) -> str | None:
    """The name of the sampler that a pipeline of this `family` came with, going by the `base_config` of its scheduler;
    None where the menu has no such one.
    """
    keys = ("algorithm_type", "solver_order", "skip_prk_steps", *SPACINGS)
    found = []
    for name, entry in SAMPLERS.items():
        same = all(
            entry.config.get(key, base_config.get(key)) == base_config.get(key, entry.config.get(key)) for key in keys
        )
        if entry.cls == base_config.get("_class_name") and same and not suitable(name, family, base_config):
            found.append(name)
    # Spacing last: SDXL's "leading" Euler is Euler, but the "trailing" one of a Turbo net is not.
    spacing = base_config.get("timestep_spacing")
    exact = [name for name in found if SAMPLERS[name].config.get("timestep_spacing") == spacing]
    return next(iter(exact or found), None)


def _wrong_net(entry: Sampler, family: str, base_config: Mapping[str, Any]) -> str:
    came = net_of(base_config)
    if came == "diffusion" and family == "lcm":
        came = "lcm"
    if entry.net == came or (entry.net == "diffusion" and came in ("lcm", "tcd")):
        return ""
    if came == "edm":
        return "this net was trained by EDM, which counts noise in its own way"
    if came == "flow":
        return "this net was trained by flow matching, it steps through the noise levels of diffusion"
    if entry.net in ("lcm", "tcd"):
        return f"it needs a net distilled for {entry.name}, and this pipeline came with another sampler"
    if family in FLOW:
        return "the scheduler that came with this pipeline does not tell the noise levels of its flow net"
    return f"it is made for nets trained by {'EDM' if entry.net == 'edm' else 'flow matching'}"


def _wrong_family(entry: Sampler, family: str) -> str:
    if family in entry.families:
        return ""
    if family == "lcm":
        return "this pipeline asks its sampler for the steps of a distilled net, which only LCM knows"
    if family == "kandinsky3" and entry.families == SCALING:
        return "it needs the net's input scaled to the noise level, which this pipeline leaves out"
    if family in FLOW and entry.net == "flow":
        return f"pipelines of the family {family!r} hand their sampler noise levels that it does not take"
    return f"it is not made for pipelines of the family {family!r}"


def _wrong_shift(entry: Sampler, base_config: Mapping[str, Any]) -> str:
    if base_config.get("invert_sigmas"):
        return "this net counts its noise levels upwards (invert_sigmas)"
    dynamic, terminal = base_config.get("use_dynamic_shifting"), base_config.get("shift_terminal")
    if entry.cls == "FlowMatchHeunDiscreteScheduler" and (dynamic or terminal):
        return "it cannot shift its noise levels with the size of the picture, as this net needs"
    if entry.cls == "DPMSolverMultistepScheduler":
        if terminal:
            return "it cannot end its noise levels where this net needs (shift_terminal)"
        if dynamic and base_config.get("time_shift_type", "exponential") != "exponential":
            return f"it cannot shift its noise levels the {base_config['time_shift_type']} way, as this net needs"
    return ""
