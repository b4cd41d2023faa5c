"""What a device counts of itself: energy, and memory at most. Where nobody counts, nothing is said.

Energy comes from counters alone: of an NVIDIA card its own (NVML, where ``pynvml`` is installed), of a processor that
of its package (RAPL, where the system lets it be read). They count all that happens on that device meanwhile. What
CodeCarbon says where there is no counter is the rated power times the time, an assumption, and not asked for here.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch

__all__ = ["Meter"]

POWERCAP: Final = Path("/sys/class/powercap")


class Meter:
    """What is counted from the moment it is made."""

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        """Begin to count on a `device`; `powercap`: where the system keeps its processor's counters."""
        self._device = device
        self._powercap = powercap
        self.name = ""
        """Which counter it is of energy; "" for none."""
        self._joules = self._now()
        self._bytes = self._memory()

    @property
    def energy(self) -> float | None:
        """Joules since then; None without a counter, and where that began anew meanwhile."""
        now = self._now()
        spent = None if now is None or self._joules is None else now - self._joules
        return spent if spent is not None and spent >= 0 else None

    @property
    def memory(self) -> int | None:
        """Bytes on a card at most since then, beyond those before; None on the CPU, and where more had been taken at
        some time before: the count is never begun anew, since it is the user's.
        """
        now = self._memory()
        if now is None or self._bytes is None or now[1] <= self._bytes[1]:
            return None
        return now[1] - self._bytes[0]

    def _memory(self) -> tuple[int, int] | None:
        """(allocated now, at most so far)."""
        if self._device.type != "cuda":
            return None
        return torch.cuda.memory_allocated(self._device), torch.cuda.max_memory_allocated(self._device)

    def _now(self) -> float | None:
        with suppress(Exception):  # no driver, no right to read, a counter that is not there
            if self._device.type == "cuda":
                return self._card()
            if self._device.type == "cpu":
                return self._processor()
        return None

    def _card(self) -> float:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(self._device).uuid)
        handle: Any = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        counted = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
        self.name = "NVML"
        return float(counted)

    def _processor(self) -> float | None:
        packages = [one for one in self._powercap.glob("intel-rapl:*") if one.name.count(":") == 1]
        counted = [int((one / "energy_uj").read_text()) for one in packages]
        if not counted:
            return None
        self.name = "RAPL"
        return sum(counted) / 1e6
