"""Probes: small classifiers on frozen features, all configurations of a protocol trained at once."""

from tonnetz.probing.goal import Goal
from tonnetz.probing.grid import Probe, Protocol, expand
from tonnetz.probing.stack import Fitted, fit

__all__ = ["Fitted", "Goal", "Probe", "Protocol", "expand", "fit"]
