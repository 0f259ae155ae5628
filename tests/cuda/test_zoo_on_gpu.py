"""Every net of the zoo on a GPU beside the CPU, for minutes: `tools/gpu_check.sh OUTPUT_DIR zoo` asks for it."""

from __future__ import annotations

import os

import numpy as np
import pytest
from zoo_losses import assert_as_the_cpu, losses

import pycnn

pytestmark = [pytest.mark.cuda, pytest.mark.slow]

if "emulated" in os.environ.get("PYCNN_CUDA_MODULE", ""):
    pytest.skip("the emulated device needs hours for them", allow_module_level=True)


@pytest.mark.parametrize("name", pycnn.models.list())
def test_steps_give_the_losses_of_the_cpu(name):
    assert_as_the_cpu(losses(name, "cuda"), losses(name, "cpu"))


# The CPU's bfloat16 is 0.005 of the loss off at most, which falls to a twentieth.
def test_bfloat16_trains_resnet50_as_the_cpu_does_in_float32():
    actual = losses("resnet50", "cuda", dtype="bfloat16")
    np.testing.assert_allclose(actual, losses("resnet50", "cpu"), rtol=0.01)
