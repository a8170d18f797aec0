"""What the refiner's design is worth, each against the plain way on the same work, in one run.

    python benchmarks/refiner.py [--device cuda] [--repeats 7]

Prints a Markdown table and writes it to benchmarks/results/refiner.md with the machine's name.
"""

from __future__ import annotations

import argparse

import torch
from measure import Work, median_times, saved_bytes, write
from torch import Tensor
from torch.nn import functional

import ultrarefiner as ur
from ultrarefiner.ops import squash_frame
from ultrarefiner.prompts import blur_in_frame
from ultrarefiner.sam import SAM, decode, encode_images


def decoding(sam: SAM, device: str) -> tuple[Work, Work]:
    """8 images of one mask each: one call and one low-resolution mask, or a loop that upsamples three to 1024 first."""
    embeddings = torch.randn(8, 256, 64, 64, device=device)
    prompts = ur.DifferentiablePromptExtractor()(torch.rand(8, 1, 224, 224, device=device))
    selection = ur.SoftSelection()
    frame = squash_frame((224, 224), 1024)

    def batched() -> Tensor:
        low, _ = selection(decode(sam, embeddings, prompts))
        return sam.input_policy.restore(low, frame)

    def loop() -> Tensor:
        masks = []
        for b in range(8):
            sparse, dense = sam.prompt_encoder(
                points=(prompts.points[b], prompts.labels[b]),
                boxes=prompts.boxes[b],
                masks=prompts.mask_logits[b][:, None],
            )
            logits, iou = sam.mask_decoder(
                image_embeddings=embeddings[b : b + 1],
                image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
            full = functional.interpolate(logits, (1024, 1024), mode="bilinear")
            share = torch.softmax(iou / 0.1, -1)[..., None, None]
            masks.append(functional.interpolate((share * full).sum(1, keepdim=True), (224, 224), mode="bilinear"))
        return torch.cat(masks)

    difference = (batched() - loop()).abs().max().item()
    print(f"decoding: largest difference {difference:.1e}")
    return batched, loop


def extraction(device: str) -> tuple[Work, Work]:
    """Points, box and mask prompt of 8 masks of 224 pixels: on their own pixels, or upsampled to 1024 first."""
    masks = torch.rand(8, 1, 224, 224, device=device)
    extractor = ur.DifferentiablePromptExtractor()
    return lambda: extractor(masks), lambda: extractor(functional.interpolate(masks, (1024, 1024), mode="bilinear"))


def blurring(device: str) -> tuple[Work, Work]:
    """The gaussian style: separable on the mask's pixels, or dense 33 x 33 on 1024 pixels as published."""
    masks = torch.rand(4, 1, 224, 224, device=device)
    frame = squash_frame((224, 224), 1024)
    bell = torch.exp(-((torch.arange(33.0, device=device) - 16) ** 2) / (2 * 11**2))
    kernel = (bell[:, None] * bell)[None, None] / bell.sum() ** 2

    def dense() -> Tensor:
        return functional.conv2d(functional.interpolate(masks, (1024, 1024), mode="bilinear"), kernel, padding=16)

    return lambda: blur_in_frame(masks, frame, sigma=0.01), dense


def frozen_graph(device: str) -> tuple[int, int]:
    """Bytes kept for backward by a frozen ViT-B on a crop whose place depends on the mask: ours, or with its graph."""
    sam = ur.build_sam("vit_b", image_size=512).to(device).requires_grad_(False)
    inputs = torch.rand(1, 3, 512, 512, device=device, requires_grad=True)
    return saved_bytes(lambda: encode_images(sam, inputs)), saved_bytes(
        lambda: encode_images(sam, inputs, through_inputs=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.manual_seed(0)
    sam = ur.build_sam("vit_b").to(args.device)
    rows = []
    with torch.inference_mode():
        for title, works in (
            ("decode 8 images, ViT-B's decoder, to 224 px", decoding(sam, args.device)),
            ("prompts of 8 masks of 224 px", extraction(args.device)),
            ("gaussian style, 4 masks of 224 px", blurring(args.device)),
        ):
            ours, plain = median_times(works, args.repeats, args.device)
            rows.append(f"| {title} | {1000 * ours:.1f} ms | {1000 * plain:.1f} ms | {plain / ours:.1f} |")
    kept, graph = frozen_graph(args.device)
    rows.append(
        f"| kept for backward, frozen ViT-B, a 512 px crop | {kept / 2**20:.0f} MiB | {graph / 2**20:.0f} MiB | - |"
    )
    write(
        "refiner",
        f"python benchmarks/refiner.py --device {args.device} --repeats {args.repeats}",
        args.device,
        ["| work | this library | the plain way | plain / ours |", "|---|--:|--:|--:|", *rows],
    )


if __name__ == "__main__":
    main()
