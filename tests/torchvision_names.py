"""Names and shapes of the weights in torchvision 0.29.1, kept as a digest for each net.

The rule: of the state dict without `num_batches_tracked`, one line "name shape" for each tensor, such as
"features.0.weight (64, 3, 11, 11)", sorted and joined by newlines; the first 16 hexadecimal digits of its SHA-256.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Golden(NamedTuple):
    tensors: int
    parameters: int
    digest: str


def describe(shapes):
    """The text of the rule, from shapes by name."""
    lines = [f"{name} {tuple(shape)}" for name, shape in shapes.items() if not name.endswith("num_batches_tracked")]
    return "\n".join(sorted(lines))


def digest(shapes):
    return hashlib.sha256(describe(shapes).encode()).hexdigest()[:16]


GOLDEN = {
    "alexnet": Golden(16, 61_100_840, "935c1ea73a7869ee"),
    "vgg11": Golden(22, 132_863_336, "b11acd4f90d9643f"),
    "vgg11_bn": Golden(54, 132_868_840, "eb52f2d89ad478d4"),
    "vgg13": Golden(26, 133_047_848, "79ca8fd7a1480aa7"),
    "vgg13_bn": Golden(66, 133_053_736, "e71996a6a29bacd7"),
    "vgg16": Golden(32, 138_357_544, "ba63c2556d912509"),
    "vgg16_bn": Golden(84, 138_365_992, "d8308b804a50efac"),
    "vgg19": Golden(38, 143_667_240, "393fac8b08b63fbe"),
    "vgg19_bn": Golden(102, 143_678_248, "8f342fea647d72df"),
    "googlenet": Golden(305, 13_004_888, "732f27ed6f1a18ed"),
    "inception_v3": Golden(484, 27_161_264, "b57ada785681682b"),
    "resnet18": Golden(102, 11_689_512, "2bb53b15765c4651"),
    "resnet34": Golden(182, 21_797_672, "b945021fb00b779b"),
    "resnet50": Golden(267, 25_557_032, "cf11dad974eadeaa"),
    "resnet101": Golden(522, 44_549_160, "d916ed2068e1af5d"),
    "resnet152": Golden(777, 60_192_808, "2fe195791c8ffb5f"),
    "resnext50_32x4d": Golden(267, 25_028_904, "f6c1ee50d9878439"),
    "resnext101_32x8d": Golden(522, 88_791_336, "682c26d7ce488af8"),
    "resnext101_64x4d": Golden(522, 83_455_272, "ed1563233073e615"),
    "wide_resnet50_2": Golden(267, 68_883_240, "5b22ca8fa50e0423"),
    "wide_resnet101_2": Golden(522, 126_886_696, "c1f0689a35d4d3f6"),
    "squeezenet1_0": Golden(52, 1_248_424, "142983e4c19c76ad"),
    "squeezenet1_1": Golden(52, 1_235_496, "3fbd2a746421cada"),
    "mobilenet_v2": Golden(262, 3_504_872, "d613ea65450d5318"),
    "densenet121": Golden(606, 7_978_856, "222a58d1fd8d2818"),
    "densenet161": Golden(806, 28_681_000, "9d03c4eb4e4ceb81"),
    "densenet169": Golden(846, 14_149_480, "a9eb5c1c253d9342"),
    "densenet201": Golden(1006, 20_013_928, "aaf6c59d276cc495"),
}
