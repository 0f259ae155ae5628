"""Transfer learning: a trained net as an encoder of other images, and what can be built on it with little data.

`Encoder` cuts a net at named layers, `extract` keeps the features of a data set, `neighbors` searches them,
`linear_probe` fits a linear classifier that becomes part of a net, `finetune` trains the upper layers,
`survey` and `advise` say which of these to do, `compare` does and measures all of them, `record_home_gain` tells
`survey` what an encoder's own kind of images looks like.

Example:
    >>> import numpy as np, pycnn as pc
    >>> encoder = pc.transfer.Encoder(pc.models.create("cifar_resnet20"), ["layer2", "layer3"])
    >>> images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.array([0, 0, 1, 1])
    >>> pc.transfer.extract(encoder, (images, labels))
    <FeatureSet: 4 samples, layer2: 32, layer3: 64>
"""

from pycnn.transfer.advice import Advice, advise
from pycnn.transfer.comparison import STRATEGIES, Comparison, StrategyResult, compare
from pycnn.transfer.depth_gain import DepthGain
from pycnn.transfer.encoder import Classifier, Encoder
from pycnn.transfer.feature_store import FeatureSet, extract, features
from pycnn.transfer.home_gain import record_home_gain
from pycnn.transfer.layer_survey import Depth, Survey, survey
from pycnn.transfer.layers import depth_groups, stage_layers, top_layer
from pycnn.transfer.linear import LinearProbe, linear_probe
from pycnn.transfer.nearest import Neighbors, classify_by_neighbors, leave_one_out_accuracy, neighbors
from pycnn.transfer.pretrained import default_encoder
from pycnn.transfer.tuning import FineTuned, finetune, fresh_head

__all__ = [
    "STRATEGIES",
    "Advice",
    "Classifier",
    "Comparison",
    "Depth",
    "DepthGain",
    "Encoder",
    "FeatureSet",
    "FineTuned",
    "LinearProbe",
    "Neighbors",
    "StrategyResult",
    "Survey",
    "advise",
    "classify_by_neighbors",
    "compare",
    "default_encoder",
    "depth_groups",
    "extract",
    "features",
    "finetune",
    "fresh_head",
    "leave_one_out_accuracy",
    "linear_probe",
    "neighbors",
    "record_home_gain",
    "stage_layers",
    "survey",
    "top_layer",
]
