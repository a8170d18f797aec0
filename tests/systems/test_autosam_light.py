"""h(g(I)): the generator and a light decoder, on SAM's way in and out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ultrarefiner.networks import LightDecoder
from ultrarefiner.sam import MedSAMInput, SAMInput, build_sam
from ultrarefiner.systems import AutoSAM, LightAutoSAM, SAMRefiner, UltraRefiner, build_autosam_generator


def light(**options: object) -> LightAutoSAM:
    torch.manual_seed(0)
    generator = build_autosam_generator("tiny", channels=64, size=4)
    return LightAutoSAM(
        generator, LightDecoder(64), **{"input_policy": SAMInput(64), "input_size": 64, **options}
    ).eval()


def test_it_is_the_two_parts_between_the_policy_and_back() -> None:
    model, images = light(), torch.rand(2, 1, 48, 64)
    prepared = model.input_policy(images)
    low = model.decoder(model.generator(prepared))
    full = functional.interpolate(low, (64, 64), mode="bilinear", align_corners=False)[..., :48, :]
    torch.testing.assert_close(model(images), full, atol=1e-4, rtol=1e-4)


def test_the_generator_sees_what_autosams_sees() -> None:
    model, images = light(input_size=32), torch.rand(1, 1, 48, 64)
    seen: list[torch.Tensor] = []
    model.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    autosam = AutoSAM(build_sam("tiny", image_size=64), model.generator, input_size=32).eval()
    model(images)
    autosam(images)
    assert torch.equal(seen[0], seen[1])
    assert seen[0].shape == (1, 3, 32, 32)


def test_both_parts_learn_and_a_batch_is_each_image() -> None:
    model, images = light(), torch.rand(3, 1, 48, 60)
    logits = model(images)
    torch.testing.assert_close(logits, torch.cat([model(image[None]) for image in images]), atol=1e-4, rtol=1e-4)
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.decoder.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.generator.parameters())
    whole = UltraRefiner(coarse=model, refiner=SAMRefiner(build_sam("tiny", image_size=64)))
    assert whole(images).refined_logits.shape == (3, 1, 48, 60)


def test_settings_and_refusals() -> None:
    assert light().settings()["input"] == {"policy": "sam", "size": 64, "resized_to": 64}
    assert light(input_policy=MedSAMInput(64)).settings()["input"]["policy"] == "medsam"
    with pytest.raises(ValueError, match="input_size must be at least 1 pixel, but it is 0"):
        light(input_size=0)
    with pytest.raises(ValueError, match="images"):
        light()(torch.full((1, 1, 48, 60), 255.0))
