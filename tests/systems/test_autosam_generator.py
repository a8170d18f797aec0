"""The published generator, number for number, from its own layout; and the small one that a laptop trains."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from published import answers, checkpoint, images, shapes

import ultrarefiner as ur
from ultrarefiner.checkpoints import from_official
from ultrarefiner.networks import LightDecoder, build_hardnet
from ultrarefiner.systems import build_autosam_generator

UNUSED_STAGE = 17_505_664
UNUSED_NORM = 512


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def test_it_answers_as_published(tmp_path: Path) -> None:
    official = checkpoint("autosam")
    torch.save({f"module.{name}": tensor for name, tensor in official.items()}, tmp_path / "net_best.pth")
    generator = build_autosam_generator().eval()
    report = ur.load_weights(generator, tmp_path / "net_best.pth", layout="autosam")
    assert set(report.loaded) == set(generator.state_dict())
    assert len(report.loaded) + len(report.left_out) == len(official) == 536
    assert not report.kept
    assert {".".join(name.split(".")[:3]) for name in report.left_out} == {
        "backbone.base.16",
        "backbone.base.18",
        "decoder.final.BN2",
    }
    assert "left out backbone.base.18.conv.weight: the stage at 1/32" in str(report)
    embedding = generator(images(1, 3, 256, 256))
    assert embedding.shape == (1, 256, 64, 64)
    (theirs,) = answers("autosam")
    ours = embedding[:, ::8, ::2, ::2]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-5


@pytest.mark.parametrize(("backbone", "published"), [("hardnet85", 41_558_300), ("hardnet68", 21_778_364)])
def test_ours_and_what_is_unused_are_the_published_count(backbone, published) -> None:
    with torch.device("meta"):
        ours = parameters(build_autosam_generator(backbone))
        stage = parameters(build_hardnet(backbone, deepest=32).stages[3])
    assert ours + stage + UNUSED_NORM == published
    assert backbone == "hardnet68" or stage == UNUSED_STAGE


def test_every_published_number_is_loaded_or_named() -> None:
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes("autosam").items()}
        ours = build_autosam_generator().state_dict()
    named = from_official("autosam", {"state_dict": state})
    assert {name: tensor.shape for name, tensor in named.items()} == {name: t.shape for name, t in ours.items()}
    learned = [name for name in named if name.endswith(("weight", "bias"))]
    assert sum(named[name].numel() for name in learned) == 41_558_300 - UNUSED_STAGE - UNUSED_NORM


def published_hardnet68(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our names of HarDNet-68 by its flat list: 3 and 4 at 1/4, 6 to 9 at 1/8, 11 and 12 at 1/16, 14 and 15 at 1/32."""
    entries = {"0.0": 3, "1.0": 6, "1.1": 8, "2.0": 11, "3.0": 14}
    named = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "stem":
            named[f"base.{'.'.join(parts[1:])}"] = tensor
            continue
        entry = entries[".".join(parts[1:3])]
        inside = [str(entry + 1), *parts[4:]] if parts[3] == "transition" else [str(entry), *parts[4:]]
        named[f"base.{'.'.join(inside)}"] = tensor
    return named


def test_an_imagenet_file_fills_the_backbone(tmp_path: Path) -> None:
    whole = build_hardnet("hardnet68", deepest=32)
    file = {**published_hardnet68(whole.state_dict()), "base.16.3.weight": torch.zeros(10, 1024)}
    assert "base.14.layers.3.conv.weight" in file
    assert "base.15.norm.bias" in file
    torch.save(file, tmp_path / "hardnet68.pth")
    generator = build_autosam_generator("hardnet68", channels=8, size=4)
    report = ur.load_weights(generator.backbone, tmp_path / "hardnet68.pth", layout="hardnet")
    for name, tensor in generator.backbone.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name])
    assert report.left_out["base.16.3.weight"] == "ImageNet's classifier"
    assert report.left_out["stages.3.0.transition.norm.bias"] == "this network was built without the stage at 1/32"
    again = build_hardnet("hardnet68", deepest=32)
    assert list(ur.load_weights(again, tmp_path / "hardnet68.pth", layout="hardnet").left_out) == ["base.16.3.weight"]


def test_hardnet68_in_their_generators_names() -> None:
    with torch.device("meta"):
        generator = build_autosam_generator("hardnet68").state_dict()
        backbone = build_hardnet("hardnet68", deepest=32).state_dict()
    file = {f"backbone.{name}": tensor for name, tensor in published_hardnet68(backbone).items()}
    named = from_official("autosam", file)
    assert set(named) == {name for name in generator if name.startswith("backbone.")}


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    torch.save({"backbone.base.0.conv.weight": torch.zeros(48, 3, 3, 3)}, tmp_path / "cut.pth")
    generator = build_autosam_generator("tiny", channels=8, size=4)
    before = generator.backbone.stem[0].conv.weight.clone()
    with pytest.raises(ValueError, match="is not a checkpoint of this PromptGenerator"):
        ur.load_weights(generator, tmp_path / "cut.pth", layout="autosam")
    with pytest.raises(ValueError, match='Its names are those of layout="autosam"'):
        ur.load_weights(generator, tmp_path / "cut.pth")
    with pytest.raises(ValueError, match=r"1 of 1 tensors .* \(backbone.base.3.conv.weight\)"):
        from_official("autosam", {"backbone.base.3.conv.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="have no place in a HarDNet checkpoint"):
        from_official("hardnet", {"base.17.conv.weight": torch.zeros(1)})
    assert torch.equal(generator.backbone.stem[0].conv.weight, before)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_autosam_generator("tiny", channels=64, size=16).eval()


def test_the_tiny_one_is_tiny() -> None:
    assert parameters(build_autosam_generator("tiny")) < 500_000


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (48, 160)])
@torch.no_grad()
def test_a_batch_is_each_of_its_images(tiny, size) -> None:
    seen = torch.rand(3, 1, *size)
    whole = tiny(seen)
    assert whole.shape == (3, 64, 16, 16)
    for index in range(3):
        torch.testing.assert_close(whole[index : index + 1], tiny(seen[index : index + 1]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole, tiny(seen.expand(-1, 3, -1, -1)))


def test_the_gradient_reaches_the_stem() -> None:
    torch.manual_seed(0)
    generator = build_autosam_generator("tiny", channels=64, size=16)
    seen = torch.rand(2, 3, 64, 64, requires_grad=True)
    generator(seen).square().mean().backward()
    assert seen.grad.abs().sum() > 0
    assert generator.backbone.stem[0].conv.weight.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in generator.parameters())


def test_mixed_precision(tiny) -> None:
    seen = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        embedding = tiny(seen)
    assert embedding.dtype == torch.bfloat16
    torch.testing.assert_close(embedding.float(), tiny(seen).detach(), atol=0.05, rtol=0.1)


def test_the_light_decoder_makes_a_network_of_it() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(build_autosam_generator("tiny", channels=64, size=16), LightDecoder(64))
    wanted = torch.zeros(2, 1, 64, 64)
    wanted[:, :, 16:48, 24:56] = 1
    seen = wanted * 0.6 + 0.2 * torch.rand(2, 1, 64, 64)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(seen), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        message = "a builder opened a connection"
        raise OSError(message)

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    for backbone in ("hardnet85", "hardnet68", "tiny"):
        with torch.device("meta"):
            build_autosam_generator(backbone)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"backbone": "hardnet39ds"}, "must be one of hardnet85, hardnet68, tiny, but it is 'hardnet39ds'"),
        ({"backbone": "tiny", "channels": 0}, "channels and hidden must be 1 or more, but they are 0 and 48"),
        ({"backbone": "tiny", "size": 0}, "size must be a whole number from 1 on"),
    ],
)
def test_refusals(arguments, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_autosam_generator(**arguments)
