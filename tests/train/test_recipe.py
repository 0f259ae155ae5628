"""Recipes: what files may hold, what they make, and the ones that come along."""

from __future__ import annotations

import tomllib
from dataclasses import fields

import numpy as np
import pytest

import pycnn as pc
from pycnn import optim, train
from pycnn.cli._options import to_toml
from pycnn.data import transforms

NAMES = train.recipes()


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


# ---- Those that come along


def test_the_lectures_recipes_come_along():
    assert {
        "alexnet", "cifar_googlenet", "cifar_resnet20", "cifar_resnet20-paper", "cifar_resnext", "cifar_vgg",
        "googlenet", "lenet5-digits", "lenet5-mnist", "lenet5-mnist-strong", "lenet5_1998-mnist", "pretrain-small",
        "resnet50", "vgg16",
    } <= set(NAMES)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_makes_all_that_a_training_needs(name):
    way = train.recipe(name)
    assert way.about.endswith(".")
    shape = {"digits": (28, 28, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}.get(way.data, (256, 256, 3))
    augment, test = way.make_transform(shape), way.make_test_transform()
    seen = shape if test is None else test.output_shape(shape)
    assert (shape if augment is None else augment.output_shape(shape)) == seen
    assert way.make_optimizer().lr == way.lr
    assert isinstance(way.make_schedule(1000), optim.Schedule)
    if name.startswith("any-"):
        assert way.net == ""
        return
    assert way.net in pc.models.list()
    net = way.make_net()
    assert net.input_shape == seen
    images = pc.data.ArrayDataset(np.zeros((16, *seen), np.uint8), np.zeros(16, np.int32)) if way.whiten else 1000
    assert way.make_trainer(net, images).seed == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_survives_being_written_and_read(name, tmp_path):
    way = train.recipe(name)
    assert train.recipe(write(tmp_path, to_toml(way.to_dict()))) == way


def test_recipes_are_as_the_papers_say():
    alexnet = train.recipe("alexnet")
    assert (alexnet.lr, alexnet.momentum, alexnet.weight_decay, alexnet.batch_size) == (0.01, 0.9, 5e-4, 128)
    assert isinstance(alexnet.make_schedule(1), optim.ReduceOnPlateau)
    assert alexnet.make_schedule(1).reduction == 0.1
    paper = train.recipe("cifar_resnet20-paper")
    assert paper.epochs * -(-50000 // paper.batch_size) == pytest.approx(64000, rel=0.005)
    rates = paper.make_schedule(64000)
    factors = [rates.factor(optim.Progress(0, epoch)) for epoch in (81, 82, 122, 123)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01])


# ---- Files


def test_groups_are_those_of_the_optimizer():
    way = train.Recipe(
        groups=[{"match": "features.*", "lr_scale": 0.1}, {"match": ["fc", "head"], "weight_decay": 0, "frozen": True}]
    )
    expected = (optim.Group("features.*", lr_scale=0.1), optim.Group("fc", "head", weight_decay=0.0, frozen=True))
    for kind in ("sgd", "adam", "adamw"):
        assert way.override(optimizer=kind).make_optimizer().groups == expected


def test_statistics_are_computed_from_the_images_and_from_nothing_else():
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
    data = pc.data.ArrayDataset(images, np.arange(20) % 10)
    way = train.Recipe(net="lenet5", mean="computed", std=0.5)
    settled = way.with_statistics(data)
    assert settled.mean == pytest.approx([images.mean() / 255])
    assert settled.std == [0.5]
    assert settled.with_statistics(data) is settled
    net = way.make_net()
    way.make_trainer(net, data)
    assert net.normalization.mean == pytest.approx(settled.mean)
    with pytest.raises(pc.ArgumentError, match="no images to compute it from"):
        way.make_trainer(way.make_net(), 20)


def test_a_file_is_read_and_the_rest_has_defaults(tmp_path):
    path = write(tmp_path, 'net = "lenet5"\nepochs = 3\nlr = 1\nmean = 0.5\n[option]\npool = "max"\n')
    way = train.recipe(path)
    assert (way.net, way.epochs, way.lr, way.mean, way.option) == ("lenet5", 3, 1.0, [0.5], {"pool": "max"})
    assert isinstance(way.lr, float)
    assert way.batch_size == train.Recipe().batch_size == 128


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("epoch = 3", ["no key 'epoch' (value 3)", "epochs"]),
        ("epochs = 0", ["'epochs' is 0", "whole number of at least 1"]),
        ("epochs = 2.5", ["'epochs' is 2.5", "whole number"]),
        ("epochs = true", ["'epochs' is True", "whole number"]),
        ('epochs = "3"', ["'epochs' is '3'", "whole number"]),
        ("lr = 0", ["'lr' is 0", "a number above 0"]),
        ("lr = inf", ["'lr' is inf", "a number above 0"]),
        ("lr = nan", ["'lr' is nan", "a number above 0"]),
        ("momentum = 1.0", ["'momentum' is 1.0", "below 1"]),
        ("weight_decay = -1e-4", ["'weight_decay' is -0.0001", "at least 0"]),
        ('optimizer = "lion"', ["'optimizer' is 'lion'", "sgd, adam, adamw"]),
        ('schedule = "exp"', ["'schedule' is 'exp'", "constant, step, cosine, one-cycle, plateau"]),
        ('data = "imagenet"', ["'data' is 'imagenet'", "digits, mnist, cifar10, cifar100, folder"]),
        ("milestones = [3, 2]", ["'milestones' is [3, 2]", "increasing whole numbers"]),
        ("milestones = 0", ["'milestones' is 0", "at least 1"]),
        ("gamma = 1.0", ["'gamma' is 1.0", "above 0 and below 1"]),
        ("rise = 0.0", ["'rise' is 0.0", "above 0 and below 1"]),
        ("nesterov = 1", ["'nesterov' is 1", "true or false"]),
        ("no_decay = [1]", ["'no_decay' is [1]", "texts"]),
        ("option = 3", ["'option' is 3", "a table"]),
        ('augment = "sharpest"', ["'augment'", "'sharpest'", "crop-mirror"]),
        ("augment = 3", ["'augment' is 3", "list of"]),
        ("augment = [{ padding = 4 }]", ["'augment' is [{'padding': 4}]", "transform"]),
        ('augment = [{ transform = "RandomCorp" }]', ["step 0", "'RandomCorp'", "RandomCrop"]),
        ('augment = [{ transform = "RandomCrop", pad = 4 }]', ["RandomCrop", "no argument 'pad'", "padding"]),
        ('augment = [{ transform = "RandomCrop", padding = -1 }]', ["RandomCrop", "padding", "-1"]),
        ('augment = [{ transform = "CenterCrop" }]', ["CenterCrop", "size"]),
        ('test_transform = "light"', ["'test_transform': 'light'", "list of transforms"]),
        ("mean = [0.5]\nstd = [0.2, 0.0]", ["'std' is [0.2, 0.0]", "above 0"]),
        ("mean = [0.1, 0.2, 0.3]\nstd = [0.2, 0.1]", ["'mean'", "'std' [0.2, 0.1]"]),
        ("label_smoothing = 1.5", ["'label_smoothing' is 1.5", "at most 1"]),
        ('mean = "measured"', ["'mean' is 'measured'", '"computed"']),
        ('groups = [{ lr_scale = 0.1 }]', ["'groups'", "group 0: 'match' is missing"]),
        ('groups = [{ match = [] }]', ["'groups'", "'match' is []"]),
        ('groups = [{ match = "fc", lr = 0.1 }]', ["'groups'", "no 'lr'", "lr_scale"]),
        ('groups = [{ match = "fc", lr_scale = -1 }]', ["'groups'", "lr_scale", "-1"]),
        ('groups = [{ match = "fc", frozen = 1 }]', ["'groups'", "'frozen' is 1"]),
        ('groups = "fc"', ["'groups' is 'fc'", "match"]),
        ("ema = 1.0", ["'ema' is 1.0", "below 1"]),
        ("validation = 1.0", ["'validation' is 1.0", "below 1"]),
        ('metrics = ["top"]', ["'top'", "top5"]),
        ("early_stopping = -1", ["'early_stopping' is -1", "at least 0"]),
        ("auxiliary_weight = -0.5", ["'auxiliary_weight' is -0.5", "-1 or at least 0"]),
        ("seed = -1", ["'seed' is -1", "at least 0"]),
        ("momentum = 0.0\nnesterov = true", ["'nesterov' is true", "momentum above 0"]),
        ('optimizer = "adam"\nmomentum = 0.9', ["'momentum' goes with optimizer sgd or muon, not 'adam'"]),
        ("lr = = 3", ["no TOML", "line 1"]),
    ],
)  # fmt: skip
def test_bad_values_are_refused_with_file_key_value_and_what_was_expected(tmp_path, line, parts):
    with pytest.raises(pc.FormatError) as caught:
        train.recipe(write(tmp_path, line + "\n"))
    text = str(caught.value)
    assert "mine.toml'" in text
    assert all(part in text for part in parts), text


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path):
    with pytest.raises(pc.FileError, match=r"none\.toml"):
        train.recipe(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(pc.FormatError, match=r"bytes\.toml"):
        train.recipe(tmp_path / "bytes.toml")


def test_an_unknown_name_is_answered_with_known_ones():
    with pytest.raises(pc.ArgumentError, match=r"'alexnett'(.|\n)*alexnet"):
        train.recipe("alexnett")


# ---- Variations


def test_changes_replace_values_and_are_checked():
    way = train.recipe("lenet5-digits", epochs=2, seed=7, option={"pool": "max"})
    assert (way.epochs, way.seed, way.option) == (2, 7, {"pool": "max"})
    assert train.recipe("lenet5-digits").epochs == 30
    with pytest.raises(pc.ArgumentError, match="'epochs' is 0"):
        way.override(epochs=0)
    with pytest.raises(pc.ArgumentError, match="no key 'lrate'"):
        way.override(lrate=1)


def test_another_kind_of_optimizer_has_a_rate_that_suits_it():
    way = train.recipe("lenet5-digits", optimizer="adamw")
    assert way.lr == 0.002
    assert isinstance(way.make_optimizer(), optim.AdamW)
    assert "momentum" not in way.to_dict()
    assert train.recipe("lenet5-digits", optimizer="adam", lr=0.01).lr == 0.01
    with pytest.raises(pc.ArgumentError, match="momentum"):
        way.override(optimizer="adam", momentum=0.5)


def test_every_key_reaches_what_it_is_for():
    way = train.Recipe(
        net="lenet5", optimizer="sgd", lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.1, no_decay=["bias", "norm"],
        schedule="step", milestones=3, gamma=0.5, label_smoothing=0.2, clip_norm=2.0, ema=0.99, seed=9,
        mean=[0.5], std=[0.25], drop_last=True, early_stopping=4, metrics=["top3"], auxiliary_weight=0.5,
        augment=[{"transform": "RandomAffine", "scale": [0.9, 1.1]}],
        test_transform=[{"transform": "CenterCrop", "size": [28, 28]}],
    )  # fmt: skip
    net = way.make_net()
    trainer = way.make_trainer(net, 100)
    optimizer = trainer.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.3, 0.8, True, 0.1)
    assert optimizer.no_decay == ("bias", "norm")
    assert repr(trainer.schedule) == "StepLR(3, gamma=0.5)"
    assert trainer.identity()["auxiliary_weight"] == 0.5
    assert train.recipe("googlenet").make_trainer(way.make_net(), 100).identity()["auxiliary_weight"] is None
    assert (trainer.clip_norm, trainer.ema_decay, trainer.seed) == (2.0, 0.99, 9)
    assert (net.normalization.mean, net.normalization.std) == ((0.5,), (0.25,))
    images = pc.data.ArrayDataset(np.zeros((200, 30, 30, 1), np.uint8), np.arange(200) % 10)
    options = way.fit_options(images)
    assert options["transform"] == transforms.Compose([transforms.RandomAffine(scale=(0.9, 1.1))])
    assert options["val_transform"] == transforms.Compose([transforms.CenterCrop((28, 28))])
    assert (options["epochs"], options["batch_size"], options["drop_last"]) == (20, 128, True)
    (stopping,) = way.make_callbacks()
    assert stopping.patience == 4
    # Label smoothing: an even guess costs log(10) with and without, so a sure one tells.
    plain = way.override(label_smoothing=0.0).make_trainer(way.make_net(), 100)
    sample = (np.zeros((4, 28, 28, 1), np.uint8), np.arange(4))
    assert set(trainer.evaluate(sample)) == {"loss", "accuracy", "top3"}
    assert trainer.evaluate(sample)["loss"] != plain.evaluate(sample)["loss"]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"schedule": "constant"}, "Constant"),
        ({"schedule": "step", "epochs": 20}, "StepLR((10, 15), gamma=0.1)"),
        ({"schedule": "cosine", "warmup_steps": 40}, "CosineWithWarmup(10, total_steps=None, final_factor=0)"),
        ({"schedule": "one-cycle", "rise": 0.2}, "OneCycle(rise=0.2, div=25, final_div=10000"),
        ({"schedule": "plateau", "gamma": 0.2, "patience": 3}, "ReduceOnPlateau(0.2, patience=3, mode='max')"),
    ],
)
def test_schedules(keys, text):
    assert text in repr(train.Recipe(**keys).make_schedule(100))


def test_element_types_that_are_not_there_are_refused():
    with pytest.raises(pc.ArgumentError, match=r"'dtype' is 'complex64', expected one of float32, bfloat16"):
        train.recipe("lenet5-digits", dtype="complex64")


def test_how_numbers_are_computed_reaches_the_trainer():
    way = train.recipe("lenet5-digits", dtype="bfloat16", emulate_bfloat16=True, winograd=False)
    trainer = way.make_trainer(way.make_net(), 100)
    assert trainer.numerics == {"dtype": "bfloat16", "emulate_bfloat16": True, "winograd": False, "tf32": False}


def test_a_training_by_recipe_goes_through_its_transforms():
    images = np.random.default_rng(0).integers(0, 256, (40, 30, 30, 1)).astype(np.uint8)
    data = pc.data.ArrayDataset(images, np.arange(40) % 10)
    way = train.Recipe(
        net="lenet5", epochs=1, batch_size=16,
        augment=[{"transform": "RandomCrop", "size": 28}], test_transform=[{"transform": "CenterCrop", "size": 28}],
    )  # fmt: skip
    trainer = way.make_trainer(way.make_net(), data)
    history = trainer.fit(data, val=data, progress=False, **way.fit_options(data))
    again = trainer.evaluate(data, transform=way.make_test_transform())
    assert history["val_loss"] == [pytest.approx(again["loss"], rel=1e-5)]
    middle = pc.data.ArrayDataset(np.ascontiguousarray(images[:, 1:29, 1:29]), data.labels)
    assert trainer.evaluate(middle)["loss"] == again["loss"]


def test_a_recipe_without_a_net_says_so():
    with pytest.raises(pc.ArgumentError, match="'net' is ''"):
        train.Recipe().make_net()


def test_every_key_is_explained():
    for field in fields(train.Recipe):
        assert field.metadata["about"], field.name
        assert tomllib.loads(to_toml({field.name: getattr(train.Recipe(), field.name)})) is not None
