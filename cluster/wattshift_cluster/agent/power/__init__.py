"""A device's draw: learnt, measured step by step, held steady, and judged.

    model     watts as a function of mining intensity, inference and power limit, with error bars
    profile   the steps of a measurement of that function
    steady    the intensities that hold the draw at a target while inference comes and goes
    spectrum  how steady a draw was
    store     the learnt model on disk

All but the store are pure: clock and readings come in through their arguments.
"""

from wattshift_cluster.agent.power.curve import Curve, Estimate
from wattshift_cluster.agent.power.model import MINING_SHARE, PowerModel
from wattshift_cluster.agent.power.profile import (
    Profile,
    ProfilePoint,
    ProfileResult,
    ProfileSample,
)
from wattshift_cluster.agent.power.steady import Intensities, SteadyDraw, SteadySettings

__all__ = [
    "MINING_SHARE",
    "Curve",
    "Estimate",
    "Intensities",
    "PowerModel",
    "Profile",
    "ProfilePoint",
    "ProfileResult",
    "ProfileSample",
    "SteadyDraw",
    "SteadySettings",
]
