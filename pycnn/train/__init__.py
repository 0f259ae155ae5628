"""Training: recipes, the loop, metrics, callbacks, curves, history and exact resume."""

from pycnn.train._recipe import Recipe, recipe, recipes
from pycnn.train.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    JSONLines,
    LambdaCallback,
    ModelCheckpoint,
)
from pycnn.train.crops import evaluate_crops, predict_crops
from pycnn.train.fingerprint import weights_fingerprint
from pycnn.train.history import History
from pycnn.train.metrics import Metric
from pycnn.train.tensorboard import TensorBoard
from pycnn.train.trainer import Trainer
from pycnn.train.whitening import whiten

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "JSONLines",
    "LambdaCallback",
    "Metric",
    "ModelCheckpoint",
    "Recipe",
    "TensorBoard",
    "Trainer",
    "evaluate_crops",
    "predict_crops",
    "recipe",
    "recipes",
    "weights_fingerprint",
    "whiten",
]
