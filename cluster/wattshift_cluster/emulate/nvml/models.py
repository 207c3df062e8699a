"""Table of the emulated cards: what is documented of each, and what is only modelled.

Name, memory, highest clocks, idle clock, power limits and idle draw of H200, H100, A100, L4 and
RTX 4090 are from published outputs of `nvidia-smi -q` on such cards (the H200's names no model, its
clocks do). The whole row of the GTX 1080 Ti is MODELLED: it stands for cards without averaged power
and without an energy counter.
NVML's reference (nvmlDeviceGetPowerUsage, nvmlFieldValueEnums, nvmlDeviceGetTotalEnergyConsumption)
says which readings an architecture has: GetPowerUsage is the mean over 1 s on Ampere (except GA100)
and later and the present draw before; field 185 exists from Ampere on (except GA100), field 186 on
all; the energy counter from Volta on. How often values are renewed (20 to 100 ms here) is MODELLED;
it differs between cards (arXiv 2312.02741 compares 70 of them).

MODELLED, from no source: draw at full load, time constants, temperatures, the memory's share. No
figure taken from an emulated card says anything about a real one.
"""

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class CardModel:
    """One emulated card model.

    Attributes:
        key: short name for configurations and tests.
        name: as the driver says it.
        capability: compute capability, major and minor.
        memory_b: framebuffer, bytes.
        least_limit_w, default_limit_w, most_limit_w: what may be set, and what holds at first.
        full_w: draw at full load without a cap; above the default limit the cap binds.
        idle_w: draw without load.
        sm_mhz, memory_mhz: highest clocks.
        sm_idle_mhz: graphics clock without load.
        usage_averaged: whether GetPowerUsage is the mean over 1 s.
        has_average, has_instant: whether fields 185 and 186 exist.
        has_energy: whether there is an energy counter.
        mig_capable: whether the card can be split.
        memory_share: part of the draw in the memory scope; 0 where there is none.
        refresh_ms: how often NVML's values change; a multiple of 10.
    """

    key: str
    name: str
    capability: tuple[int, int]
    memory_b: int
    least_limit_w: float
    default_limit_w: float
    most_limit_w: float
    full_w: float
    idle_w: float
    sm_mhz: int
    memory_mhz: int
    sm_idle_mhz: int = 345
    usage_averaged: bool = True
    has_average: bool = True
    has_instant: bool = True
    has_energy: bool = True
    mig_capable: bool = False
    memory_share: float = 0.0
    refresh_ms: int = 100


H200 = CardModel(
    key="h200",
    name="NVIDIA H200",
    capability=(9, 0),
    memory_b=141 * 10**9,
    least_limit_w=200,
    default_limit_w=700,
    most_limit_w=700,
    full_w=700,
    idle_w=75,
    sm_mhz=1980,
    memory_mhz=3201,
    mig_capable=True,
    memory_share=0.5,
)
H100 = CardModel(
    key="h100",
    name="NVIDIA H100 80GB HBM3",
    capability=(9, 0),
    memory_b=80 * GIB,
    least_limit_w=200,
    default_limit_w=700,
    most_limit_w=700,
    full_w=700,
    idle_w=72,
    sm_mhz=1980,
    memory_mhz=2619,
    mig_capable=True,
    memory_share=0.5,
)
A100 = CardModel(
    key="a100",
    name="NVIDIA A100-SXM4-80GB",
    capability=(8, 0),
    memory_b=80 * GIB,
    least_limit_w=100,
    default_limit_w=400,
    most_limit_w=400,
    full_w=400,
    idle_w=52,
    sm_mhz=1410,
    memory_mhz=1593,
    sm_idle_mhz=210,
    usage_averaged=False,
    has_average=False,
    mig_capable=True,
)
L4 = CardModel(
    key="l4",
    name="NVIDIA L4",
    capability=(8, 9),
    memory_b=24 * GIB,
    least_limit_w=40,
    default_limit_w=72,
    most_limit_w=72,
    full_w=90,
    idle_w=16,
    sm_mhz=2040,
    memory_mhz=6251,
    sm_idle_mhz=210,
    has_average=False,
    has_instant=False,  # as under a driver older than fields 185 and 186
)
RTX_4090 = CardModel(
    key="rtx4090",
    name="NVIDIA GeForce RTX 4090",
    capability=(8, 9),
    memory_b=24 * GIB,
    least_limit_w=150,
    default_limit_w=450,
    most_limit_w=600,
    full_w=450,
    idle_w=28,
    sm_mhz=3105,
    memory_mhz=10501,
    sm_idle_mhz=210,
)
GTX_1080_TI = CardModel(
    key="gtx1080ti",
    name="NVIDIA GeForce GTX 1080 Ti",
    capability=(6, 1),
    memory_b=11 * GIB,
    least_limit_w=125,
    default_limit_w=250,
    most_limit_w=300,
    full_w=250,
    idle_w=12,
    sm_mhz=1911,
    memory_mhz=5505,
    sm_idle_mhz=139,
    usage_averaged=False,
    has_average=False,
    has_energy=False,  # a Pascal consumer card: the counter came with Volta
    refresh_ms=20,
)

BY_KEY = {model.key: model for model in (H200, H100, A100, L4, RTX_4090, GTX_1080_TI)}
