"""Published layouts: every tensor has a place, or a reason; anything else is refused and changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import checkpoint, imagenet, shapes

import ultrarefiner as ur
from ultrarefiner.checkpoints import from_official
from ultrarefiner.ops.position_embedding import position_grid, resize_position_grid

WRAPPERS = [lambda state: state, lambda state: {"model": state}, lambda state: {"state_dict": {"model": state}}]
PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod."]


def test_parts_that_were_compiled_alone() -> None:
    state = {"decoder._orig_mod.conv_more.1.bias": torch.zeros(2), "segmentation_head.0.bias": torch.zeros(2)}
    assert set(from_official("transunet", state)) == {"decoder.bridge.1.bias", "head.bias"}


def small_official() -> dict[str, torch.Tensor]:
    """The published names of a tiny MicroSegNet, read off the renaming backwards through a full-size one."""
    kept = (
        "transformer.embeddings.position_embeddings",
        "segmentation_head.0.bias",
        "decoder.segmentation_head1.0.bias",
    )
    full = {name: torch.randn(shape) for name, shape in shapes("microsegnet_r50_vit_b16").items() if name in kept}
    return {**full, "transformer.encoder.encoder_norm.weight": torch.randn(768)}


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_wrappers_and_prefixes(wrap, prefix) -> None:
    state = small_official()
    named = from_official("microsegnet", wrap({prefix + name: tensor for name, tensor in state.items()}))
    assert set(named) == {"encoder.position_embedding", "head.bias", "side_heads.1.bias", "encoder.norm.weight"}
    assert torch.equal(named["head.bias"], state["segmentation_head.0.bias"])


@pytest.mark.parametrize(
    ("layout", "official", "build"),
    [
        ("transunet", "transunet_r50_vit_b16", lambda: ur.build_transunet(classes=2)),
        ("microsegnet", "microsegnet_r50_vit_b16", ur.build_microsegnet),
    ],
)
def test_every_published_name_has_a_place(layout, official, build) -> None:
    with torch.device("meta"):
        ours = build().state_dict()
        state = {name: torch.empty(shape) for name, shape in shapes(official).items()}
    named = from_official(layout, state)
    assert {name: tensor.shape for name, tensor in named.items()} == {name: t.shape for name, t in ours.items()}
    # Nothing is lost on the way: as many numbers come out as went in.
    assert sum(t.numel() for t in named.values()) == sum(t.numel() for t in state.values())


def test_a_part_that_was_compiled_loads_what_it_saved(tmp_path: Path) -> None:
    network = ur.build_transunet("tiny", image_size=64)
    network.decoder = torch.compile(network.decoder)
    torch.save(network.state_dict(), tmp_path / "compiled.pt")
    assert len(ur.load_weights(network, tmp_path / "compiled.pt").loaded) == len(network.state_dict())
    ur.load_weights(ur.build_transunet("tiny", image_size=64), tmp_path / "compiled.pt")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("embedding/kernel", (3,)),
        ("block1/unit1/conv1/kernel", (1, 64, 64)),
        ("Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel", (4, 4, 4)),
        ("Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel", ()),
    ],
)
def test_arrays_of_another_rank(name, shape) -> None:
    with pytest.raises(ValueError, match=f"{name} must have [234] axes"):
        from_official("vit_npz", {name: np.zeros(shape, np.float32)})


def test_query_key_and_value_are_joined_in_this_order() -> None:
    parts = {part: torch.full((2, 2), float(index)) for index, part in enumerate(("query", "key", "value"))}
    official = {f"transformer.encoder.layer.3.attn.{part}.weight": parts[part] for part in ("value", "query", "key")}
    joined = from_official("transunet", official)["encoder.blocks.3.attention.query_key_value.weight"]
    assert joined[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    official.popitem()
    with pytest.raises(ValueError, match="must have a query, a key and a value, but the file has only query and value"):
        from_official("transunet", official)


@settings(deadline=None, max_examples=15)
@given(old=st.integers(2, 8), rows=st.integers(1, 12), columns=st.integers(1, 12), token=st.booleans())
def test_positions_are_resized_as_the_published_code_does(old, rows, columns, token) -> None:
    tokens = torch.randn(1, old * old + token, 3)
    grid = resize_position_grid(position_grid(tokens), (rows, columns))
    square = tokens[0, int(token) :].reshape(old, old, 3).numpy()
    expected = scipy.ndimage.zoom(square, (rows / old, columns / old, 1), order=1)
    np.testing.assert_allclose(grid[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert torch.equal(resize_position_grid(position_grid(tokens), (old, old)), position_grid(tokens))


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize("shape", [(1, 7, 4), (196, 4), (1, 4, 2, 2), (1, 0, 4)])
def test_positions_that_are_no_square(shape) -> None:
    with pytest.raises(ValueError, match=r"tokens must be \(1, n, channels\) with n a square number"):
        position_grid(torch.zeros(shape))


def test_numpys_arrays_will_do() -> None:
    named = from_official("vit_npz", {"Transformer/encoder_norm/scale": np.ones(4, np.float32)})
    assert torch.equal(named["encoder.norm.weight"], torch.ones(4))
    for name in ("block0/unit1/conv1/kernel", "block1/unit1/conv4x/kernel"):
        with pytest.raises(ValueError, match="1 of 1 tensors have no place"):
            from_official("vit_npz", {name: np.ones((1, 1, 4, 4), np.float32)})


@pytest.fixture
def tiny_file(tmp_path: Path):
    torch.manual_seed(1)
    network = ur.build_microsegnet("tiny", image_size=64).eval()
    torch.nn.init.normal_(network.encoder.position_embedding)
    torch.save(network.state_dict(), tmp_path / "tiny.pt")
    return network, tmp_path / "tiny.pt"


@torch.no_grad()
def test_a_file_of_another_image_size(tiny_file) -> None:
    network, path = tiny_file
    larger = ur.build_microsegnet("tiny", image_size=(96, 128)).eval()
    report = ur.load_weights(larger, path)
    assert report.resized == {"encoder.position_embedding": "from 4 x 4 to 6 x 8 patches"}
    assert "resized encoder.position_embedding: from 4 x 4 to 6 x 8 patches" in str(report)
    images = torch.rand(1, 1, 96, 128)
    torch.testing.assert_close(larger(images).logits, network(images).logits)


@torch.no_grad()
def test_a_wrapped_network_is_found(tiny_file, tmp_path: Path) -> None:
    network, path = tiny_file
    wrapped = ur.AtSize(ur.build_microsegnet("tiny", image_size=64), 64).eval()
    report = ur.load_weights(wrapped, path)
    assert set(report.loaded) == set(wrapped.state_dict())
    images = torch.rand(1, 1, 64, 64)
    assert torch.equal(wrapped(images).logits, network(images).logits)
    torch.save(wrapped.state_dict(), tmp_path / "wrapped.pt")
    assert ur.load_weights(wrapped, tmp_path / "wrapped.pt").loaded == report.loaded
    bare = ur.build_microsegnet("tiny", image_size=64).eval()
    assert set(ur.load_weights(bare, tmp_path / "wrapped.pt").loaded) == set(bare.state_dict())
    assert torch.equal(bare(images).logits, network(images).logits)
    np.savez(tmp_path / "R50+ViT-B_16.npz", **imagenet())
    twice = ur.AtSize(ur.ForegroundLogits(ur.build_transunet(classes=2)), 224)
    report = ur.load_weights(twice, tmp_path / "R50+ViT-B_16.npz", layout="vit_npz")
    assert all(name.startswith("network.network.") for name in (*report.loaded, *report.kept))
    unchanged_after(wrapped, tmp_path / "R50+ViT-B_16.npz", "vision transformer|of another shape", layout="vit_npz")


def test_side_heads_may_stay_in_the_file(tmp_path: Path) -> None:
    torch.save(checkpoint("microsegnet_r50_vit_b16"), tmp_path / "epoch_9.pth")
    network = ur.build_transunet()
    report = ur.load_weights(network, tmp_path / "epoch_9.pth", layout="microsegnet")
    assert set(report.loaded) == set(network.state_dict())
    assert len(report.left_out) == 6
    assert set(report.left_out.values()) == {"this network was built without deep supervision"}
    with pytest.raises(ValueError, match=r'6 unknown .* Its names are those of layout="microsegnet"'):
        ur.load_weights(network, tmp_path / "epoch_9.pth", layout="transunet")


def test_every_name_of_an_imagenet_file_has_a_place() -> None:
    state = {name: torch.from_numpy(array) for name, array in imagenet().items()}
    named = from_official("vit_npz", state)
    with torch.device("meta"):
        ours = ur.build_transunet().state_dict()
    wanted = {name: t.shape for name, t in ours.items() if name.startswith(("stem.", "encoder."))}
    assert {name: tensor.shape for name, tensor in named.items()} == wanted
    lost = 768  # the class token's position
    assert sum(t.numel() for t in named.values()) == sum(t.numel() for t in state.values()) - lost


def test_an_imagenet_file_without_a_stem(tmp_path: Path) -> None:
    arrays = {name: array for name, array in imagenet().items() if name.startswith("Transformer/")}
    arrays["embedding/kernel"] = np.random.RandomState(0).rand(16, 16, 3, 768).astype(np.float32)
    arrays["embedding/bias"] = np.zeros(768, np.float32)
    for name, shape in (("cls", (1, 1, 768)), ("head/kernel", (768, 5)), ("head/bias", (5,))):
        arrays[name] = np.zeros(shape, np.float32)
    np.savez(tmp_path / "ViT-B_16.npz", **arrays)
    (tmp_path / "ViT-B_16.pth").write_bytes((tmp_path / "ViT-B_16.npz").read_bytes())
    network = ur.build_transunet("vit_b16", image_size=(256, 128))
    report = ur.load_weights(network, tmp_path / "ViT-B_16.npz", layout="vit_npz")
    renamed = ur.load_weights(network, tmp_path / "ViT-B_16.pth", layout="vit_npz")
    assert renamed.loaded == report.loaded, "the content says what it is"
    kernel = network.encoder.patch_embedding.weight
    assert kernel[7, 2, 3, 4].item() == arrays["embedding/kernel"][3, 4, 2, 7]
    assert report.left_out["head/kernel"] == "ImageNet's classifier"
    assert report.resized == {"encoder.position_embedding": "from 14 x 14 to 16 x 8 patches"}
    assert "tensors kept as they were (decoder.bridge.0.weight to head.weight)" in str(report)
    with pytest.raises(ValueError, match=r"missing \(stem\.conv\.weight"):
        ur.load_weights(ur.build_transunet(), tmp_path / "ViT-B_16.npz", layout="vit_npz")


def unchanged_after(network, path: Path, sentence: str, **options) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        ur.load_weights(network, path, **options)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_what_does_not_fit_changes_nothing(tiny_file, tmp_path: Path) -> None:
    network, path = tiny_file
    unchanged_after(ur.build_transunet("tiny", classes=2), path, r"2 of another shape .* classes=1\.")
    torch.save(ur.build_microsegnet("tiny", image_size=64).state_dict(), tmp_path / "other.pt")
    torch.save(ur.build_transunet("tiny", classes=2).state_dict(), tmp_path / "two.pt")
    one = ur.build_transunet("tiny")
    unchanged_after(one, tmp_path / "two.pt", "The file has classes=2, and ForegroundLogits reads them as one lesion")
    torch.save(small_official(), tmp_path / "official.pth")
    unchanged_after(network, tmp_path / "official.pth", 'Its names are those of layout="microsegnet"')
    twice = {"head.bias": torch.zeros(1), "_orig_mod.head.bias": torch.zeros(1)}
    torch.save(twice, tmp_path / "twice.pth")
    unchanged_after(network, tmp_path / "twice.pth", "holds 1 tensors twice")
    unchanged_after(network, path, "tensors have no place in a TransUNet or MicroSegNet checkpoint", layout="transunet")
    torch.save({**small_official(), "optimizer.lr": torch.ones(1)}, tmp_path / "more.pth")
    unchanged_after(network, tmp_path / "more.pth", r"1 of 5 tensors .* \(optimizer.lr\)", layout="microsegnet")


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_hostile_arrays(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("bomb.npz", cls=np.array([Bomb()], dtype=object))
    Path("text.npz").write_text("<html>not found</html>")
    np.savez("whole.npz", cls=np.zeros(1000))
    Path("cut.npz").write_bytes(Path("whole.npz").read_bytes()[:700])
    np.save("one.npy", np.zeros(3))
    Path("one.npy").rename("one.npz")
    for name in ("bomb.npz", "text.npz", "cut.npz", "one.npz"):
        with pytest.raises(ValueError, match=f"{name} .* is truncated, damaged, or holds more than arrays"):
            ur.load_weights(torch.nn.Linear(1, 1), name, layout="vit_npz")
    assert not Path("exploded").exists()
