"""A convolutional net as a scikit-learn classifier."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

from pycnn import models, nn, optim
from pycnn.arguments import as_integer, as_number
from pycnn.errors import ArgumentError, LabelError
from pycnn.sklearn._images import as_images, check_image_shape, shape_of_images
from pycnn.tensor import Parameter
from pycnn.train import Trainer

__all__ = ["CNNClassifier"]

_OPTIMIZERS: dict[str, Callable[[float], optim.Optimizer]] = {
    "adam": lambda rate: optim.Adam(lr=rate),
    "adamw": lambda rate: optim.AdamW(lr=rate),
    "sgd": lambda rate: optim.SGD(lr=rate, momentum=0.9),
}


class CNNClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Convolutional net that is trained with cross-entropy.

    Images are (N, H, W, C), grey ones also (N, H, W), or rows of their pixels (N, H * W * C), as scikit-learn's data
    sets have them. They are read as float32 and brought to mean 0 and deviation 1 in each channel, by the numbers of
    the images that `fit` was given.

    Args:
        net: Which net is trained: a name of `pycnn.models.list()`; a `pycnn.nn.Module`, which is copied, keeps its
            weights and gets a fresh head where it has another number of classes; or a function that is called with
            ``num_classes`` and ``input_shape`` and returns a module. None: two 3x3 convolutions of 16 and 32 channels,
            each pooled where the image is large enough, and two dense layers.
        image_shape: (H, W, C) or (H, W) of the images, needed where X are rows of other than square grey images.
        epochs: Passes over the data.
        batch_size: Images in a step.
        optimizer: "adam", "adamw", "sgd" (momentum 0.9), or one of `pycnn.optim`, whose rate counts then.
        learning_rate: For an optimizer that is given by name.
        augment: Augmentation, of `pycnn.data.transforms`.
        threads: At most this many; None chooses. The result does not depend on it.
        random_state: Seed of weights, shuffling, dropout and augmentation: an integer, a `numpy.random.RandomState`, or
            None for another one each time.
        verbose: Show the progress.

    Attributes:
        classes_: The labels, sorted.
        net_: The trained net; takes images (N, H, W, C).
        image_shape_: (H, W, C) of the images.
        history_: A row for each epoch; see `pycnn.train.History`.
        n_features_in_: Size of X's second axis.

    Raises:
        ArgumentError: In `fit`, an argument is out of range. X holds numbers beyond the range of float32.
        ShapeError: Images do not have the shape that was given or fitted.
        ValueError: X or y is none that scikit-learn accepts: NaN, no labels, a single class.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> y = np.array(["dark", "light"])[np.arange(40) % 2]
        >>> X = rng.random((40, 8, 8)) + (y == "light")[:, None, None]
        >>> float(CNNClassifier(epochs=5, random_state=0).fit(X, y).score(X, y))
        1.0
    """

    def __init__(
        self,
        net: Any = None,
        *,
        image_shape: Any = None,
        epochs: int = 20,
        batch_size: int = 32,
        optimizer: Any = "adam",
        learning_rate: float = 2e-3,
        augment: Any = None,
        threads: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.net = net
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.augment = augment
        self.threads = threads
        self.random_state = random_state
        self.verbose = verbose

    # ---- Training

    def fit(self, X: Any, y: Any) -> CNNClassifier:
        """Train a fresh net.

        Args:
            X: Images; see the class.
            y: A label for each: numbers or texts.

        Returns:
            The estimator.
        """
        epochs = as_integer(self.epochs, who="CNNClassifier", name="epochs", low=1)
        batch = as_integer(self.batch_size, who="CNNClassifier", name="batch_size", low=1)
        X, y = validate_data(self, X, y, allow_nd=True, dtype="numeric")
        check_classification_targets(y)
        self._start(X, np.unique(y))
        labels = np.searchsorted(self.classes_, y)
        self._train(X, labels, epochs, batch)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> CNNClassifier:
        """Train one epoch on these images, going on with the net that there is.

        Args:
            X: Images; see the class. The first call's set mean and deviation.
            y: Their labels.
            classes: All labels that will come; needed in the first call.

        Returns:
            The estimator.

        Raises:
            ValueError: The first call lacks `classes`, or a later one gives others.
            LabelError: A label is none of the classes.
        """
        batch = as_integer(self.batch_size, who="CNNClassifier", name="batch_size", low=1)
        first = not hasattr(self, "classes_")
        X, y = validate_data(self, X, y, allow_nd=True, dtype="numeric", reset=first)
        check_classification_targets(y)
        if first:
            if classes is None:
                raise ArgumentError("CNNClassifier: classes must be given in the first call of partial_fit")
            self._start(X, unique_labels(classes))
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise ArgumentError(f"CNNClassifier: classes are {classes!r}, the first call's were {self.classes_!r}")
        unknown = np.setdiff1d(y, self.classes_)
        if unknown.size:
            raise LabelError(
                f"CNNClassifier: label {unknown.tolist()[0]!r} is none of the classes {self.classes_.tolist()}"
            )
        self._train(X, np.searchsorted(self.classes_, y), 1, batch)
        return self

    def _start(self, array: np.ndarray, classes: np.ndarray) -> None:
        """Make the net for these images and labels."""
        if len(classes) < 2:
            raise ArgumentError(
                f"CNNClassifier: y holds one class ({classes.tolist()}), a classifier needs at least 2 classes"
            )
        shape = shape_of_images(array.shape, check_image_shape(self.image_shape))
        images = as_images(array, shape)
        self.image_shape_ = shape
        self.classes_ = classes
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.net_ = self._make_net(len(classes), shape)
        axes = (0, 1, 2)
        mean, std = images.mean(axes, dtype=np.float64), images.std(axes, dtype=np.float64)
        # A channel that is the same everywhere, but for the rounding of its mean, stays as it is.
        varied = std > np.maximum(1e-7 * np.abs(mean), 1e-30)
        self.net_.normalization = nn.Normalize(mean.tolist(), np.where(varied, std, 1.0).tolist())
        self._trainer: Trainer | None = None
        self.history_: Any = None

    def _make_net(self, classes: int, shape: tuple[int, int, int]) -> nn.Module:
        if isinstance(self.net, nn.Module):
            net = copy.deepcopy(self.net)
            kept = {id(parameter) for parameter in net.parameters()}
            net.build(shape)
            nn.replace_head(net, classes)
            self._draw(parameter for parameter in net.parameters() if id(parameter) not in kept)
            return net
        if self.net is None:
            net = _small_net(classes, shape)
        elif isinstance(self.net, str):
            net = models.create(self.net, num_classes=classes, input_shape=shape)
        elif callable(self.net):
            net = _called(self.net, classes, shape)
        else:
            raise ArgumentError(
                f"CNNClassifier: net is {self.net!r}, expected a name, a Module or a function that makes one"
            )
        if not isinstance(net, nn.Module):
            raise ArgumentError(f"CNNClassifier: net gave {type(net).__name__}, expected a pycnn.nn.Module")
        net.build(shape)
        self._draw(net.parameters())
        return net

    def _draw(self, parameters: Iterable[Parameter]) -> None:
        """Give fresh parameters values of this estimator's seed."""
        for parameter in parameters:
            if parameter.initializer is not None:
                parameter.draw(parameter.initializer, self._seed)

    def _make_optimizer(self) -> optim.Optimizer:
        if isinstance(self.optimizer, optim.Optimizer):
            return copy.deepcopy(self.optimizer)
        if not isinstance(self.optimizer, str) or self.optimizer not in _OPTIMIZERS:
            raise ArgumentError(
                f"CNNClassifier: optimizer is {self.optimizer!r}, expected {', '.join(_OPTIMIZERS)}, or of pycnn.optim"
            )
        rate = as_number(self.learning_rate, who="CNNClassifier", name="learning_rate", low=0.0, above=True)
        return _OPTIMIZERS[self.optimizer](rate)

    def _train(self, array: np.ndarray, labels: np.ndarray, epochs: int, batch: int) -> None:
        images = as_images(array, shape_of_images(array.shape, self.image_shape_))
        if self._trainer is None:
            self._trainer = Trainer(
                self.net_, loss="cross_entropy", optimizer=self._make_optimizer(), threads=self.threads, seed=self._seed
            )
        self.history_ = self._trainer.fit(
            (images, labels),
            epochs=epochs,
            batch_size=min(batch, len(images)),
            transform=copy.deepcopy(self.augment),
            progress=bool(self.verbose),
        )

    # ---- Predicting

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class.

        Args:
            X: Images; see the class.

        Returns:
            float32 (N, classes), in the order of `classes_`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, dtype="numeric", reset=False)
        shape = shape_of_images(X.shape, self.image_shape_)
        with warnings.catch_warnings():
            # One image alone rarely has the range of all.
            warnings.filterwarnings("ignore", message=".*trained on.*")
            return self.net_.predict_proba(as_images(X, shape))

    def predict(self, X: Any) -> np.ndarray:
        """Label of each image.

        Args:
            X: Images; see the class.

        Returns:
            (N,), labels of `classes_`.
        """
        probabilities = self.predict_proba(X)
        labels: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return labels

    # ---- For scikit-learn

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the trainer: a copy that goes on with `partial_fit` starts its optimizer anew."""
        state = dict(super().__getstate__())
        if "_trainer" in state:
            state["_trainer"] = None
        return state

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know: images of several axes are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _called(make: Any, classes: int, shape: tuple[int, int, int]) -> Any:
    """What a function or class gives for these classes and images.

    Raises:
        ArgumentError: It does not take them.
    """
    options = {"num_classes": classes, "input_shape": shape}
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        name = getattr(make, "__name__", repr(make))
        raise ArgumentError(
            f"CNNClassifier: net {name} does not take num_classes and input_shape by name ({error})\n"
            "  hint: give an instance, or a function such as lambda num_classes, input_shape: ..."
        ) from None
    except ValueError:  # what is written in C may not tell
        pass
    return make(**options)


def _small_net(classes: int, shape: tuple[int, int, int]) -> nn.Module:
    height, width, channels = shape
    layers: list[nn.Module] = []
    for width_out in (16, 32):
        layers += [nn.Conv2d(channels, width_out, 3, padding=1), nn.ReLU()]
        if min(height, width) >= 4:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = width_out
    if height * width > 64:
        layers.append(nn.AdaptiveAvgPool2d((min(height, 8), min(width, 64))))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(None, 64), nn.ReLU(), nn.Linear(64, classes))
