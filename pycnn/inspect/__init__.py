"""Looking inside a net: feature maps, what they keep, filters, what a score depends on, what a unit likes, mistakes.

Every function gives arrays; `plots` draws them, `report` gathers everything in one page.

Example:
    >>> import numpy as np, pycnn
    >>> net = pycnn.models.lenet5()
    >>> pycnn.inspect.saliency(net, np.zeros((1, 28, 28, 1), np.float32), 3).shape
    (1, 28, 28)
"""

from __future__ import annotations

from pycnn.inspect import plots
from pycnn.inspect.feature_maps import activations, layer_names, receptive_field
from pycnn.inspect.filter_chains import FilterChain, FilterComparison, compare_filters
from pycnn.inspect.gradients import default_cam_layer, grad_cam, guided_backpropagation, input_gradients, saliency
from pycnn.inspect.html_report import Picture, Report, report
from pycnn.inspect.inverted_features import Inversion, invert_features
from pycnn.inspect.learned_filters import filter_pictures, filters
from pycnn.inspect.mistakes import Mistakes, Predictions, predictions
from pycnn.inspect.occlude import occlusion
from pycnn.inspect.preferred_inputs import Patches, maximize, top_patches
from pycnn.nn.receptive_field import ReceptiveField

__all__ = [
    "FilterChain",
    "FilterComparison",
    "Inversion",
    "Mistakes",
    "Patches",
    "Picture",
    "Predictions",
    "ReceptiveField",
    "Report",
    "activations",
    "compare_filters",
    "default_cam_layer",
    "filter_pictures",
    "filters",
    "grad_cam",
    "guided_backpropagation",
    "input_gradients",
    "invert_features",
    "layer_names",
    "maximize",
    "occlusion",
    "plots",
    "predictions",
    "receptive_field",
    "report",
    "saliency",
    "top_patches",
]
