"""Published weights that `download` knows: where they are, how large, and what proves that they are whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownFile:
    """One published file.

    Attributes:
        name: its name, here and in the cache.
        url: where it is.
        size: in bytes; None where no exact figure is published.
        hash: "sha256:..." or "md5:...", the strongest one that independent sources agree on; None if there is none.
        layout: what `load_weights` is to be told.
        note: what it is, and what it is not.

    Example:
        >>> KNOWN_FILES["sam_vit_b_01ec64.pth"].layout
        'sam'
    """

    name: str
    url: str
    size: int | None
    hash: str | None
    layout: str
    note: str


_SAM = "https://dl.fbaipublicfiles.com/segment_anything"
_VIT = "https://storage.googleapis.com/vit_models/imagenet21k"

KNOWN_FILES: dict[str, KnownFile] = {
    file.name: file
    for file in (
        KnownFile(
            name="sam_vit_b_01ec64.pth",
            url=f"{_SAM}/sam_vit_b_01ec64.pth",
            size=375_042_383,
            hash="sha256:ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            layout="sam",
            note="Segment Anything, ViT-B.",
        ),
        KnownFile(
            name="sam_vit_l_0b3195.pth",
            url=f"{_SAM}/sam_vit_l_0b3195.pth",
            size=1_249_524_607,
            hash="sha256:3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            layout="sam",
            note="Segment Anything, ViT-L.",
        ),
        KnownFile(
            name="sam_vit_h_4b8939.pth",
            url=f"{_SAM}/sam_vit_h_4b8939.pth",
            size=2_564_550_879,
            hash="sha256:a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            layout="sam",
            note="Segment Anything, ViT-H.",
        ),
        KnownFile(
            name="medsam_vit_b.pth",
            url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
            size=375_049_145,
            hash="md5:3bb6db55bd0c9ca30b61248bca72f8d6",
            layout="sam",
            note="MedSAM, ViT-B, a copy on Zenodo. MedSAM's own page leads to Google Drive.",
        ),
        KnownFile(
            name="R50+ViT-B_16.npz",
            url=f"{_VIT}/R50%2BViT-B_16.npz",
            size=None,
            hash=None,
            layout="vit_npz",
            note=(
                "ResNet-50 and ViT-B/16 on ImageNet-21k, where TransUNet and MicroSegNet start. "
                "The file of the same name in imagenet21k+imagenet2012 is a different one."
            ),
        ),
        KnownFile(
            name="ViT-B_16.npz",
            url=f"{_VIT}/ViT-B_16.npz",
            size=None,
            hash=None,
            layout="vit_npz",
            note=(
                "ViT-B/16 on ImageNet-21k. The file of the same name in imagenet21k+imagenet2012 is a different one."
            ),
        ),
    )
}
"""By file name."""
