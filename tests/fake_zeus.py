"""The public part of Zeus 0.16.0 that joulewise calls, shaped as in its source, with numbers that a test sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass
class Measurement:
    """As `zeus.monitor.energy.Measurement`: joules by index, apart from the system on a chip."""

    time: float
    gpu_energy: dict[int, float]
    cpu_energy: dict[int, float] | None = None
    dram_energy: dict[int, float] | None = None
    soc_energy: Any | None = None

    @cached_property
    def total_energy(self) -> float:
        return sum(self.gpu_energy.values())  # GPUs alone, as in Zeus


@dataclass
class JetsonMeasurement:
    """As `zeus.device.soc.jetson.JetsonMeasurement`: millijoules; CPU and GPU are parts of the total."""

    cpu_energy_mj: float | None = None
    gpu_energy_mj: float | None = None
    total_energy_mj: float | None = None


@dataclass
class AppleSiliconMeasurement:
    """As `zeus.device.soc.apple.AppleSiliconMeasurement`: millijoules; cores and clusters are parts of the CPU."""

    cpu_total_mj: int | None = None
    efficiency_cores_mj: list[int] | None = None
    performance_cores_mj: list[int] | None = None
    efficiency_cluster_mj: list[int] | None = None
    performance_cluster_mj: list[int] | None = None
    efficiency_core_manager_mj: int | None = None
    performance_core_manager_mj: int | None = None
    dram_mj: int | None = None
    gpu_mj: int | None = None
    gpu_sram_mj: int | None = None
    ane_mj: int | None = None


@dataclass
class ZeusMonitor:
    """As `zeus.monitor.ZeusMonitor`: windows by key; a key that is open twice or not at all is a ValueError."""

    gpu_indices: list[int] = field(default_factory=list)
    cpu_indices: list[int] = field(default_factory=list)
    soc_is_present: bool = False
    result: Measurement = field(default_factory=lambda: Measurement(1.0, {}))
    measurement_states: dict[str, Measurement] = field(default_factory=dict)

    def begin_window(self, key: str, sync_execution: bool = True, restart: bool = False) -> None:
        if sync_execution and self.gpu_indices:
            raise RuntimeError("No framework is available.")
        if key in self.measurement_states and not restart:
            raise ValueError(f"Measurement window '{key}' already exists")
        self.measurement_states[key] = self.result

    def end_window(self, key: str, sync_execution: bool = True, cancel: bool = False) -> Measurement:
        del cancel
        if sync_execution and self.gpu_indices:
            raise RuntimeError("No framework is available.")
        try:
            self.measurement_states.pop(key)
        except KeyError:
            raise ValueError(f"Measurement window '{key}' does not exist") from None
        return self.result
