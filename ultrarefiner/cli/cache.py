"""``ultrarefiner cache``: a frozen encoder's embeddings of a data set, computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultrarefiner.cli.cases import open_cases
from ultrarefiner.cli.frozen_sam import SAMFlags
from ultrarefiner.data import EmbeddingCache, FittedCases


def cache(
    out: Path,
    phantoms: int | None = None,
    batch_size: int = 1,
    part: int = 0,
    parts: int = 1,
    progress: bool = True,
    **options: Any,
) -> str:
    """Compute and keep the embeddings of SAM's image encoder, float16, for training without it.

    The same command again goes on where it was stopped or killed, and computes damaged entries anew. On several GPUs or
    nodes with a file system in common, give each its part. Training reads them with its flag embeddings.

    Args:
        out: folder for the embeddings.
        phantoms: this many made-up cases instead of a folder.
        batch_size: images at once; of ViT-B at 1024 pixels one takes 3 GB, four take 10.
        part: which share of the images to compute, from 0.
        parts: in how many shares.
        progress: show a progress bar on a terminal.
        options: which cases and which SAM.

    Returns:
        What is there now, in a sentence.
    """
    flags = SAMFlags(**options)
    cases = open_cases(flags, phantoms=phantoms)
    sam = flags.frozen_sam(made_up=phantoms is not None)
    fitted = FittedCases(cases, sam.input_policy.size, keep_in_memory=False)
    kept = EmbeddingCache(out, sam)
    computed = kept.fill(fitted, batch_size=batch_size, part=part, parts=parts, progress=progress)
    return f"{computed} embeddings computed; {out} holds {len(kept)}, of {len(cases)} cases that were asked for."
