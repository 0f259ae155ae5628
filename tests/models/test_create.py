"""The registry of networks."""

from __future__ import annotations

import pytest

import pycnn as pc


def test_names_are_listed_and_each_can_be_made():
    assert pc.models.list() == ("lenet5", "lenet5_1998")
    for name in pc.models.list():
        assert pc.models.create(name).num_parameters > 0


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
