"""TransUNet R50-ViT-B/16 against the published graph written plainly: forward and backward at 224 px, in one run.

    python benchmarks/transunet.py [--device cuda] [--batch 4] [--repeats 5]

Prints a Markdown table and writes it to benchmarks/results/transunet.md with the machine's name. Both networks have the
same weights; their answers are compared first.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from measure import Work, median_times, paired_times, saved_bytes, write
from plain_transunet import PlainTransUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ultrarefiner as ur


def networks(device: str) -> tuple[nn.Module, nn.Module]:
    """The plain one and ours, with the same weights."""
    torch.manual_seed(0)
    plain, ours = PlainTransUNet(), ur.build_transunet(classes=2)
    ours.load_state_dict(ur.checkpoints.from_official("transunet", plain.state_dict()))
    return plain.to(device), ours.to(device)


def step(network: nn.Module, images: torch.Tensor) -> Work:
    """Forward and backward in training mode."""

    def work() -> None:
        network.zero_grad(set_to_none=True)
        network(images).square().mean().backward()

    return work


def floor(network: nn.Module, images: torch.Tensor, repeats: int, device: str) -> float:
    """Seconds that the step's multiplications take at the speed of one large matrix product."""
    with FlopCounterMode(display=False) as counter:
        step(network, images)()
    left, right = (torch.randn(2048, 2048, device=device) for _ in range(2))
    seconds, _ = median_times((lambda: left @ right, lambda: None), repeats, device)
    return counter.get_total_flops() * seconds / (2 * 2048**3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    plain, ours = networks(args.device)
    images = torch.rand(args.batch, 1, 224, 224, device=args.device)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), plain.eval()(images), rtol=1e-4, atol=1e-5)
    rows = ["| work | plain | this library | plain / ours, median (lowest to highest round) |", "|---|--:|--:|--:|"]

    def compare(title: str, works: tuple[Work, Work]) -> None:
        before, after = paired_times(works, args.repeats, args.device)
        ratios = sorted(slow / fast for slow, fast in zip(before, after, strict=True))
        shown = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        rows.append(f"| {title} | {statistics.median(before):.3f} s | {statistics.median(after):.3f} s | {shown} |")

    plain.train()
    ours.train()
    compare("forward and backward", (step(plain, images), step(ours, images)))
    kept = [saved_bytes(lambda network=network: network(images), network) / 2**20 for network in (plain, ours)]
    rows.append(f"| kept for the backward pass | {kept[0]:.0f} MiB | {kept[1]:.0f} MiB | {kept[0] / kept[1]:.2f} |")
    plain.eval()
    ours.eval()
    with torch.inference_mode():
        compare("forward alone", (lambda: plain(images), lambda: ours(images)))
    last = images.to(memory_format=torch.channels_last)
    ours = ours.to(memory_format=torch.channels_last).train()
    plain.train()
    compare("forward and backward, ours channels-last", (step(plain, images), step(ours, last)))
    least = floor(ours, images, args.repeats, args.device)
    rows += ["", f"Its multiplications alone, at the speed of a matrix product of 2048 x 2048, take {least:.3f} s."]
    command = f"python benchmarks/transunet.py --device {args.device} --batch {args.batch} --repeats {args.repeats}"
    write("transunet", command, args.device, rows)


if __name__ == "__main__":
    main()
