"""Training: the loop, metrics, callbacks, history and exact resume."""

from pycnn.train.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    JSONLines,
    LambdaCallback,
    ModelCheckpoint,
)
from pycnn.train.fingerprint import weights_fingerprint
from pycnn.train.history import History
from pycnn.train.metrics import Metric
from pycnn.train.trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "JSONLines",
    "LambdaCallback",
    "Metric",
    "ModelCheckpoint",
    "Trainer",
    "weights_fingerprint",
]
