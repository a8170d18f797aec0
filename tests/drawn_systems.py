"""Systems of every setting, drawn by hypothesis inside a test: ``draw`` is ``data.draw``."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from saved_systems import Plain, tiny_sam
from torch import nn

import ultrarefiner as ur

unit = st.floats(0.0, 1.0, allow_nan=False)
positive = st.floats(0.01, 50.0, allow_nan=False)
rules = st.one_of(
    st.none(),
    st.builds(ur.Centroid, gamma=st.floats(1.0, 4.0)),
    st.builds(ur.BoxBackground, softness=positive),
    st.just(ur.FarCorner()),
    st.builds(ur.MeanShift, steps=st.integers(0, 9), bandwidth=positive),
)


def drawn_gate(draw: Any, kinds: tuple[str, ...] = ("none", "uncertainty", "learned", "product")) -> nn.Module | None:
    kind = draw(st.sampled_from(kinds))
    if kind == "uncertainty":
        low, high = sorted((draw(unit), draw(unit)))
        return ur.UncertaintyGate(draw(positive), minimum=low, maximum=high)
    if kind == "learned":
        return ur.LearnedGate(draw(st.integers(1, 6)), bias=draw(st.floats(-5, 5)))
    if kind == "product":
        return ur.ProductGate(*(drawn_gate(draw, kinds[1:3]) for _ in range(draw(st.integers(1, 3)))))
    return None


def drawn_prompts(draw: Any) -> ur.DifferentiablePromptExtractor:
    return ur.DifferentiablePromptExtractor(
        image_size=draw(st.integers(1, 2048)),
        mask_style=draw(st.sampled_from(["direct", "gaussian", None])),
        positive=draw(rules),
        negative=draw(rules),
        sigmas=draw(st.none() | positive),
        logit_scale=draw(positive),
        blur_sigma=draw(positive),
        floor=draw(st.floats(0, 0.04)),
        minimum_probability=draw(st.floats(0.05, 1.0)),
    )


def drawn_cropper(draw: Any) -> ur.ROICropper | None:
    if draw(st.booleans()):
        return None
    return ur.ROICropper(
        size=draw(st.integers(1, 2048)),
        expand=draw(positive),
        sigmas=draw(positive),
        aspect=draw(st.sampled_from(["square", "image"])),
        minimum=draw(st.floats(0.01, 1.0)),
        floor=draw(st.floats(0, 0.04)),
        minimum_probability=draw(st.floats(0.05, 1.0)),
    )


def drawn_pair(draw: Any) -> ur.UltraRefiner:
    policies = [None, ur.MedSAMInput(64), ur.SAMInput(64, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 0.5))]
    refiner = ur.SAMRefiner(
        tiny_sam(input_policy=draw(st.sampled_from(["sam", "medsam"])), image_size=draw(st.sampled_from([32, 64]))),
        prompts=drawn_prompts(draw),
        cropper=drawn_cropper(draw),
        selection=ur.SoftSelection(draw(positive)) if draw(st.booleans()) else ur.BestSelection(),
        through_crop=draw(st.booleans()),
        input_policy=policies[draw(st.integers(0, 2))],
    )
    rule = ur.AcceptanceRule(minimum_iou=draw(unit), minimum_agreement=draw(unit)) if draw(st.booleans()) else None
    return ur.UltraRefiner(
        coarse=ur.AtSize(Plain(), draw(st.integers(1, 512))),
        refiner=refiner,
        gate=drawn_gate(draw),
        gradient_scale=draw(positive),
        acceptance=rule,
        frame=draw(st.none() | st.integers(1, 1024)),
    )
