"""The registry of networks."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import pycnn as pc


def test_names_are_listed_and_each_can_be_made():
    names = pc.models.list()
    assert {"lenet5", "lenet5_1998"} <= set(names) <= set(dir(pc.models))
    assert names == tuple(sorted(names))
    for name in names:
        net = pc.models.create(name)
        assert net.num_parameters > 0
        assert len(net.input_shape) == 3
        assert "input_shape" in inspect.signature(getattr(pc.models, name)).parameters


def test_importing_the_package_imports_no_net():
    code = (
        "import sys, pycnn.models as m;"
        "assert not [n for n in sys.modules if n.startswith('pycnn.models.lenet')];"
        "assert callable(m.lenet5) and m.lenet5().num_parameters == 61706;"
        "import pycnn.models.lenet5_1998;"
        "assert m.lenet5_1998().num_parameters == 60000;"
        "assert m.LeNet5 is type(m.lenet5());"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_image_shape_is_free_where_the_architecture_allows():
    assert pc.models.create("lenet5", input_shape=(32, 32, 3)).conv1.in_channels == 3
    with pytest.raises(pc.ArgumentError, match="square"):
        pc.models.create("lenet5", input_shape=(32, 28, 3))
    with pytest.raises(pc.ArgumentError, match=r"lenet5_1998.*\(32, 32, 3\)"):
        pc.models.create("lenet5_1998", input_shape=(32, 32, 3))
    with pytest.raises(pc.ArgumentError, match=r"\(H, W, C\), got 32"):
        pc.models.create("lenet5", input_shape=32)


def test_an_unknown_attribute_is_refused():
    with pytest.raises(AttributeError, match="lenet6"):
        pc.models.lenet6  # noqa: B018


def test_options_are_handed_on():
    assert pc.models.create("lenet5", num_classes=3).fc3.out_features == 3


def test_unknown_names_and_options_are_answered_with_known_ones():
    with pytest.raises(pc.ArgumentError, match="'lenet'(.|\n)*lenet5"):
        pc.models.create("lenet")
    with pytest.raises(pc.ArgumentError, match="'classes'(.|\n)*num_classes"):
        pc.models.create("lenet5", classes=3)


def test_weights_follow_from_the_seed_not_from_the_order_of_creation():
    pc.manual_seed(3)
    try:
        first = pc.models.create("lenet5").state_dict()
        pc.models.create("lenet5_1998").state_dict()
        again = pc.models.create("lenet5").state_dict()
    finally:
        pc.manual_seed(0)
    assert pc.train.weights_fingerprint(first) == pc.train.weights_fingerprint(again)
