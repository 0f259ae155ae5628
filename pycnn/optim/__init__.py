"""Optimizers and learning-rate schedules: hyper-parameters only.

The update itself is part of the training program that `pycnn.Trainer` compiles.
"""

from pycnn.optim.optimizers import SGD, Adam, AdamW, Group, Muon, Optimizer
from pycnn.optim.schedules import (
    Constant,
    CosineWithWarmup,
    OneCycle,
    Progress,
    ReduceOnPlateau,
    Schedule,
    StepLR,
)

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "CosineWithWarmup",
    "Group",
    "Muon",
    "OneCycle",
    "Optimizer",
    "Progress",
    "ReduceOnPlateau",
    "Schedule",
    "StepLR",
]
