"""How long before its deadline each batch must be at work: on what others leave of the nodes.

Batch shares its nodes with services, which may want their most, and with each other: what is due
earlier is done before, and what is due later rests for it (`waiting`).
"""

import math

import numpy as np

from wattshift_scheduler.arrays import Floats
from wattshift_scheduler.plan.machines import HOUR_S
from wattshift_scheduler.plan.words import Ahead, Batch


def needs_s(ahead: Ahead) -> Floats:
    """For how long each batch must be at work before its deadline, s; infinite where even all the
    time that is left may be too little; shape (batches,)."""
    return np.array([_need_s(ahead, one) for one in ahead.batches])


def _need_s(ahead: Ahead, one: Batch) -> float:
    own_s = one.left_wh / one.most_w * HOUR_S if one.most_w > 0.0 else math.inf
    if math.isinf(ahead.compute_w) or math.isinf(one.deadline_s):
        return own_s
    open_ = [other for other in ahead.batches if other.left_wh > 0.0]
    due_wh = sum(other.left_wh for other in open_ if other.deadline_s <= one.deadline_s)
    room_w = np.maximum(ahead.compute_w - ahead.services.high, 0.0)
    begins_s = ahead.step_s * np.arange(len(ahead))
    ends_s = np.append(begins_s[1:], max(one.deadline_s, ahead.step_s * len(ahead)))
    # The last interval stands for all that comes after the horizon.
    span_s = np.clip(np.minimum(ends_s, one.deadline_s) - begins_s, 0.0, None)
    done_wh = np.cumsum((room_w * span_s)[::-1])[::-1] / HOUR_S
    enough = np.flatnonzero(done_wh >= due_wh)
    if not len(enough):
        return math.inf
    # In the latest interval from which on it is enough, what it takes of that and all after it.
    last = int(enough[-1])
    after_wh = float(done_wh[last + 1]) if last + 1 < len(done_wh) else 0.0
    part_s = (due_wh - after_wh) / room_w[last] * HOUR_S if room_w[last] > 0.0 else 0.0
    until_s = min(float(ends_s[last]), one.deadline_s)
    return max(own_s, one.deadline_s - until_s + float(part_s))
