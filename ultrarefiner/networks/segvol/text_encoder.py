"""The name of an organ to the embedding that SegVol's decoder is told: CLIP's text encoder and a linear layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn


def organ_sentences(organs: Sequence[str]) -> list[str]:
    """The sentences that SegVol's weights know organs by.

    Example:
        >>> organ_sentences(["liver"])
        ['A computerized tomography of a liver.']
    """
    return [f"A computerized tomography of a {organ}." for organ in organs]


class SegVolTextEncoder(nn.Module):
    """CLIP's text transformer, through the package transformers, and a linear layer to SegVol's width.

    It holds no words and opens no file: the tokenizer is the caller's, for instance
    ``transformers.CLIPTokenizer.from_pretrained("openai/clip-vit-base-patch32")``. SegVol keeps CLIP frozen and trains
    the linear layer: ``encoder.clip.requires_grad_(False)``.

    Args:
        width: channels of the embedding, SegVol's own.
        vocabulary: tokens that CLIP knows; the last one ends a sentence.
        channels: of CLIP.
        layers: its transformer blocks.
        heads: its attention heads.
        hidden: channels inside a block's linear layers.

    Raises:
        ModuleNotFoundError: the package transformers is not installed.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    """

    def __init__(
        self,
        width: int = 768,
        *,
        vocabulary: int = 49408,
        channels: int = 512,
        layers: int = 12,
        heads: int = 8,
        hidden: int = 2048,
    ) -> None:
        super().__init__()
        transformers = _transformers()
        config = transformers.CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=channels,
            intermediate_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
        )
        model = transformers.CLIPTextModel(config)
        # Before transformers 5 the model is a shell around this part; from 5 on it is this part.
        self.clip: nn.Module = getattr(model, "text_model", model)
        self.dim_align = nn.Linear(channels, width)
        self.width = width

    def forward(
        self, tokens: Int[Tensor, "b n"], attention_mask: Int[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b c"]:
        """One embedding a sentence, for ``SegVol.decode(text=...)``.

        Args:
            tokens: the sentences' tokens, at most 77, with CLIP's start and end.
            attention_mask: 1 where a token belongs to the sentence, 0 where it fills up.

        Returns:
            Embeddings of SegVol's width.
        """
        pooled = self.clip(input_ids=tokens, attention_mask=attention_mask).pooler_output
        embedding: Tensor = self.dim_align(pooled)
        return embedding

    def encode(self, organs: Sequence[str], *, tokenizer: Callable[..., Mapping[str, Any]]) -> Float[Tensor, "b c"]:
        """One embedding for each organ's name.

        Args:
            organs: such as "liver" or "left kidney".
            tokenizer: sentences to ``input_ids`` and ``attention_mask``, as CLIP's tokenizer of transformers does.

        Returns:
            Embeddings of SegVol's width.
        """
        batch = tokenizer(organ_sentences(organs), padding=True, return_tensors="pt")
        device = self.dim_align.weight.device
        embedding: Tensor = self(batch["input_ids"].to(device), batch["attention_mask"].to(device))
        return embedding


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ModuleNotFoundError as error:
        message = (
            "SegVolTextEncoder needs the package transformers, which is not installed; run pip install transformers, "
            "or give SegVol a text embedding, points or boxes in its place."
        )
        raise ModuleNotFoundError(message, name=error.name) from error
