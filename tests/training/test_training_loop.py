"""One loop: gradients, precision, accumulation, validation, logs, refusals."""

from __future__ import annotations

import csv
import os
import signal
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.data import FittedCase, collate
from ultrarefiner.training import CoarseRecipe, Cosine, Polynomial, Prediction, StepResult, dice_of_images, freeze
from ultrarefiner.training.epoch import _check_gradient
from ultrarefiner.training.run import Run


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns_and_reports(coarse, fit, other_cases) -> None:
    recipe = coarse(augmentation=None, learning_rate=0.05)
    result = fit(recipe, epochs=12, validation=other_cases, log_every=2, checkpoint_every=2)
    metrics, steps = rows(result.folder / "metrics.csv"), rows(result.folder / "steps.csv")
    assert [int(row["epoch"]) for row in metrics] == list(range(12))
    assert [int(row["step"]) for row in steps] == sorted({*range(2, 37, 2), *range(3, 37, 3)})
    assert float(metrics[-1]["epoch/loss"]) < 0.7 * float(metrics[0]["epoch/loss"])
    scores = [float(row["validation/dice"]) for row in metrics]
    assert result.best_dice == max(scores) > 0.3
    assert result.best_epoch == scores.index(max(scores))
    assert result.steps == 36
    best, last = read_tensors(result.best), read_tensors(result.last)
    assert (best["dice"], best["epoch"]) == (result.best_dice, result.best_epoch)
    assert same(last["model"], recipe.network.state_dict())
    assert float(steps[-1]["learning_rate/coarse"]) == pytest.approx(0.05 * 0.01)
    assert max(float(row["learning_rate/coarse"]) for row in steps) <= 0.05


def test_best_is_the_mean_over_images_not_over_pixels(fit, tmp_path) -> None:
    class Constant(nn.Module):
        """Perfect on the large lesion, blind to the small one."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return images * 0 + self.weight * 0 + torch.where(images > 0.8, 9.0, -9.0)

    image, mask = torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
    image[0, :, 4:28, 4:28] = mask[0, :, 4:28, 4:28] = 1
    mask[1, :, 15:17, 15:17] = 1
    image[1, :, 16:, 16:] = 1  # its content is 16 x 16: what is predicted in the padding does not count
    sizes = [(32, 32), (16, 16)]
    validation = [FittedCase(str(i), image[i], mask[i], sizes[i], sizes[i]) for i in range(2)]
    for batch_size in (1, 2):
        recipe = CoarseRecipe(Constant(), augmentation=None)
        result = fit(recipe, epochs=1, batch_size=batch_size, validation=validation, folder=tmp_path / str(batch_size))
        assert result.best_dice == pytest.approx(0.5)


def test_accumulated_gradients_are_those_of_a_large_batch(network, fit, tmp_path) -> None:
    # Without batch norm and dropout, which see the batch; 6 cases make one step of 4 and one of 2.
    def plain() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Conv2d(1, 1, 3, padding=1)

    small, large = (CoarseRecipe(plain(), augmentation=None) for _ in range(2))
    one = fit(small, batch_size=1, accumulate=4, folder=tmp_path / "a")
    other = fit(large, batch_size=4, accumulate=1, folder=tmp_path / "b")
    assert one.steps == other.steps == 4
    for name, tensor in small.network.state_dict().items():
        torch.testing.assert_close(tensor, large.network.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_each_number_changes_the_weights(coarse, fit, tmp_path) -> None:
    def final(**options):
        recipe = coarse()
        fit(recipe, folder=tmp_path / f"{len(list(tmp_path.iterdir()))}", **options)
        return weights(recipe.network)

    plain = final()
    for options in (
        {"seed": 1},
        {"clip_norm": 1e-3},
        {"schedule": Cosine(warmup=0.5)},
        {"schedule": Cosine(floor=0.9)},
        {"schedule": Polynomial()},
        {"accumulate": 2},
        {"precision": "bf16-mixed"},
    ):
        assert not same(plain, final(**options)), options


def test_workers_and_logging_do_not_change_the_weights(coarse, fit, other_cases, tmp_path) -> None:
    finals = []
    for number, options in enumerate(
        ({}, {"workers": 1}, {"log_every": 1, "checkpoint_every": 1, "tensorboard": True, "validation": other_cases})
    ):
        recipe = coarse()
        fit(recipe, folder=tmp_path / str(number), **options)
        finals.append(weights(recipe.network))
    assert same(finals[0], finals[1])
    assert same(finals[0], finals[2])
    assert list((tmp_path / "2" / "tensorboard").iterdir())


def test_the_global_random_state_is_left_alone(coarse, fit) -> None:
    recipe = coarse()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(recipe)
    assert torch.equal(torch.rand(3), expected)


@dataclass(frozen=True, eq=False)
class Witness(CoarseRecipe):
    """Remembers what its step was given."""

    def step(self, batch, generator) -> StepResult:
        logits = self.network(batch.images)
        SEEN.append((batch.images.dtype, logits.dtype, torch.rand(1, generator=generator).item(), torch.rand(1).item()))
        loss = self.loss(logits, batch.masks)
        return StepResult(loss, {}, dice_of_images(logits.float().sigmoid(), batch.masks).mean())


SEEN: list = []


def test_mixed_precision_computes_in_half_and_keeps_images_and_weights(network, fit) -> None:
    SEEN.clear()
    recipe = Witness(network())
    before = weights(recipe.network)
    fit(recipe, precision="bf16-mixed", epochs=1)
    assert {(images, logits) for images, logits, *_ in SEEN} == {(torch.float32, torch.bfloat16)}
    assert {tensor.dtype for tensor in recipe.network.parameters()} == {torch.float32}
    assert not same(before, weights(recipe.network))


def test_every_step_draws_its_own_numbers(network, fit) -> None:
    SEEN.clear()
    fit(Witness(network()), epochs=2)
    assert len({drawn for _, _, drawn, _ in SEEN}) == len({drawn for *_, drawn in SEEN}) == len(SEEN) == 6


def test_frozen_parts_stay_through_training_and_staged_ones_move_later(coarse, fit, tmp_path) -> None:
    recipe = coarse(frozen={"encoder": 1})
    start = weights(recipe.network)
    fit(recipe, epochs=1, folder=tmp_path / "one", clip_norm=None)
    after = weights(recipe.network)
    assert [name for name in start if not torch.equal(start[name], after[name])] == ["head.weight", "head.bias"]
    assert all(parameter.requires_grad for parameter in recipe.network.parameters()), "as it was before"
    assert not recipe.network.training

    staged = coarse(frozen={"encoder": 1})
    fit(staged, epochs=2, folder=tmp_path / "two")
    assert int(staged.network.encoder[1].num_batches_tracked) == 3, "one epoch's batches, not two"
    assert not torch.equal(start["encoder.0.weight"], staged.network.encoder[0].weight)


def test_what_was_frozen_by_hand_stays(coarse, fit) -> None:
    recipe = coarse()
    freeze(recipe.network.encoder)
    start = weights(recipe.network.encoder)
    fit(recipe)
    assert same(start, weights(recipe.network.encoder))


@dataclass(frozen=True, eq=False)
class Forgetful(CoarseRecipe):
    def parameter_groups(self):
        return [type(group)("head", self.network.head, 0.1, 0.0) for group in super().parameter_groups()]


@dataclass(frozen=True, eq=False)
class Doubling(CoarseRecipe):
    def parameter_groups(self):
        groups = super().parameter_groups()
        return [*groups, type(groups[0])("head", self.network.head, 0.1, 0.0)]


def test_a_parameter_in_no_group_or_in_two_is_refused(network, fit) -> None:
    with pytest.raises(ValueError, match=r"exactly one parameter group, but encoder.0.weight is in none"):
        fit(Forgetful(network()))
    with pytest.raises(ValueError, match=r"exactly one parameter group, but head.weight is in coarse and head"):
        fit(Doubling(network()))


def test_a_run_that_cannot_start_leaves_the_model_as_it_was(network, fit) -> None:
    recipe = Doubling(network(), frozen={"encoder": None})
    with pytest.raises(ValueError, match=r"head.weight is in coarse and head"):
        fit(recipe)
    assert all(parameter.requires_grad for parameter in recipe.network.parameters())
    loss = nn.BCEWithLogitsLoss()
    loss.how = lambda x: x
    unspeakable = CoarseRecipe(recipe.network, loss=loss, frozen={"encoder": None})
    with pytest.raises(ValueError, match=r"recipe.loss.how must be something that a checkpoint can describe"):
        fit(unspeakable)
    assert all(parameter.requires_grad for parameter in recipe.network.parameters())


@pytest.mark.parametrize("name", ["log_every", "checkpoint_every"])
def test_steps_between_reports_are_at_least_one_or_none(coarse, fit, tmp_path, name) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1 step, or None for each epoch's end only, .* 0"):
        fit(coarse(), **{name: 0})
    result = fit(coarse(), **{name: None})
    assert len(rows(result.folder / "steps.csv")) == 2


def test_strategies_that_split_the_model_are_refused(coarse, fit) -> None:
    with pytest.raises(ValueError, match=r"strategy must be one of auto, ddp, .*, but it is 'fsdp'; each process"):
        fit(coarse(), strategy="fsdp")


def test_a_network_of_another_resolution(network, fit, other_cases) -> None:
    model = nn.Sequential(nn.AvgPool2d(2), network())
    recipe = CoarseRecipe(model, learning_rate=0.01)
    result = fit(recipe, validation=other_cases, precision="bf16-mixed")
    assert 0 <= result.best_dice <= 1
    batch = collate(other_cases)
    logits = nn.functional.interpolate(model(batch.images), (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(recipe.predict(batch, [0, 1, 2]).probability, logits.sigmoid())


def test_empty_sets_are_refused(coarse, fit) -> None:
    with pytest.raises(ValueError, match=r"dataset must hold at least one case"):
        fit(coarse(), dataset=[])
    with pytest.raises(ValueError, match=r"validation must hold at least one case, but it is empty"):
        fit(coarse(), validation=[])


def test_resume_false_refuses_a_folder_with_a_run(coarse, fit) -> None:
    fit(coarse(), resume=False)
    with pytest.raises(FileExistsError, match=r"holds a run already \(last.pt\); pass resume=True"):
        fit(coarse(), resume=False)


@dataclass(frozen=True, eq=False)
class Exploding(CoarseRecipe):
    """NaN from the third step on."""

    def step(self, batch, generator) -> StepResult:
        result = super().step(batch, generator)
        SEEN.append(1)
        return result._replace(loss=result.loss * (float("nan") if len(SEEN) > 4 else 1.0))


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(network, fit, tmp_path) -> None:
    SEEN.clear()
    with pytest.raises(FloatingPointError, match=r"the loss became nan by step .*lower the learning rate"):
        fit(Exploding(network()), checkpoint_every=1, log_every=100)
    saved = read_tensors(tmp_path / "run" / "last.pt")
    assert saved["progress"]["step"] == 4
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


@dataclass(frozen=True, eq=False)
class Rooted(CoarseRecipe):
    """From the third step on the root of 0: a finite loss, a gradient that is not."""

    def step(self, batch, generator) -> StepResult:
        result = super().step(batch, generator)
        SEEN.append(1)
        root = (self.network.head.bias * 0).sum().sqrt() if len(SEEN) > 2 else 0
        return result._replace(loss=result.loss + root)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_the_run_before_its_step(network, fit, tmp_path, clip_norm) -> None:
    SEEN.clear()
    recipe = Rooted(network())
    with pytest.raises(
        FloatingPointError, match=r"the loss was finite, but the norm of its gradient became nan in ste"
    ):
        fit(recipe, checkpoint_every=1, log_every=100, clip_norm=clip_norm)
    saved = read_tensors(tmp_path / "run" / "last.pt")
    assert saved["progress"]["step"] == 2
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())
    assert all(parameter.isfinite().all() for parameter in recipe.network.parameters())


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_scaler_is_left_to_skip_the_step(clip_norm) -> None:
    layer = nn.Linear(1, 1)
    layer.weight.grad = torch.full((1, 1), torch.inf)
    fabric = SimpleNamespace(
        strategy=SimpleNamespace(precision=SimpleNamespace(scaler=torch.amp.GradScaler("cpu"))),
        clip_gradients=lambda module, optimizer, **options: torch.tensor(torch.inf),
    )
    run = object.__new__(Run)
    vars(run).update(fabric=fabric, module=layer, optimizer=None, plan=SimpleNamespace(clip_norm=clip_norm))
    _check_gradient(run)


@dataclass(frozen=True, eq=False)
class Interrupted(CoarseRecipe):
    """Somebody presses Ctrl-C during a chosen step, or during validation."""

    moment: int = 2
    number: int = signal.SIGINT

    def settings(self):
        return {**super().settings(), "class": "same", "recipe": "same", "moment": 0}

    def step(self, batch, generator) -> StepResult:
        SEEN.append(1)
        if len(SEEN) == self.moment:
            os.kill(os.getpid(), self.number)
        return super().step(batch, generator)

    def predict(self, batch, cases) -> Prediction:
        if self.moment < 0 and len(SEEN) == 3:
            SEEN.append(1)
            os.kill(os.getpid(), self.number)
        return super().predict(batch, cases)


@pytest.mark.parametrize(
    ("moment", "number", "sentence"),
    [
        (
            2,
            signal.SIGINT,
            r"stopped in epoch 1 of 2 after step 2; everything is saved in .*last.pt. Run the same command",
        ),
        (3, signal.SIGTERM, "stopped in epoch 2 of 2 after step 3"),  # the end of an epoch: validation is not lost
        (-1, signal.SIGINT, "stopped in epoch 2 of 2 after step 3"),  # during validation
    ],
)
def test_an_interrupted_run_saves_says_how_to_go_on_and_does(
    network, fit, other_cases, tmp_path, moment, number, sentence
) -> None:
    straight = Interrupted(network(), moment=10**6)
    whole = fit(straight, folder=tmp_path / "whole", validation=other_cases)
    SEEN.clear()
    with pytest.raises(KeyboardInterrupt, match=sentence):
        fit(Interrupted(network(), moment=moment, number=number), validation=other_cases)
    resumed = Interrupted(network(), moment=10**6, number=number)
    again = fit(resumed, validation=other_cases)
    assert same(weights(straight.network), weights(resumed.network))
    assert (again.best_dice, again.steps) == (whole.best_dice, whole.steps)
    for name in ("metrics.csv", "steps.csv"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_an_interrupt_in_the_last_epoch_is_not_swallowed(network, fit, other_cases, tmp_path) -> None:
    SEEN.clear()
    with pytest.raises(KeyboardInterrupt, match=r"asked to stop, but all 2 epochs are done; everything is saved in"):
        fit(Interrupted(network(), moment=6), validation=other_cases)
    assert read_tensors(tmp_path / "run" / "last.pt")["progress"]["step"] == 6
    again = fit(Interrupted(network(), moment=10**6), validation=other_cases)
    assert again.steps == again.resumed_from == 6


def test_a_finished_run_is_only_read_and_says_so(coarse, fit, caplog) -> None:
    first = coarse()
    with caplog.at_level("INFO", "ultrarefiner"):
        result = fit(first)
    assert result.resumed_from is None
    assert not caplog.records
    time = result.last.stat().st_mtime_ns
    again = coarse()
    with caplog.at_level("INFO", "ultrarefiner"):
        assert fit(again) == replace(result, resumed_from=6)
    assert "is of a finished run (2 epochs, 6 steps): nothing is left to train" in caplog.text
    assert result.last.stat().st_mtime_ns == time
    assert same(weights(first.network), weights(again.network))


def test_a_checkpoint_is_only_tensors_and_each_weight_is_there_once(ultra, fit) -> None:
    from ultrarefiner.training import JointRecipe

    model = ultra()
    content = read_tensors(fit(JointRecipe(model, anchor_weight=0.1), epochs=1).last)
    storages = [tensor.untyped_storage().data_ptr() for tensor in content["model"].values()]
    assert set(content["model"]) == set(model.state_dict())
    assert len(storages) == len(set(storages))
    assert content["settings"]["recipe"]["model"]["refiner"]["prompts"]["mask_style"] == "direct"


def test_dice_of_images_against_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    probability, masks = (torch.rand(3, 2, 8, 8, generator=generator) for _ in range(2))
    masks[2] = probability[2] = 0
    expected = []
    for one, other in zip(probability > 0.5, masks > 0.5, strict=True):
        dices = [
            2 * (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else 1.0 for a, b in zip(one, other, strict=True)
        ]
        expected.append(float(sum(dices)) / 2)
    torch.testing.assert_close(dice_of_images(probability, masks), torch.tensor(expected))
