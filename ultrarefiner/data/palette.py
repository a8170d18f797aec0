"""The colours of every picture: Okabe and Ito's palette, told apart with any colour vision, and on grey.

One meaning, one colour, whoever draws: the panels of a prediction and the figures of an evaluation. Colours are
"#RRGGBB".

References:
    Okabe, Ito: Color Universal Design (CUD): how to make figures and presentations that are friendly to colorblind
    people. 2008.
"""

from __future__ import annotations

COARSE = "#E69F00"
"""The coarse network's mask."""

REFINED = "#56B4E9"
"""The refined mask, or the only one."""

TRUTH = "#FFFFFF"
"""The true mask."""

REGION = "#CC79A7"
"""What SAM looked at, or what was asked about."""

LESION = "#009E73"
"""A point that says: lesion here."""

BACKGROUND = "#D55E00"
"""A point that says: no lesion here."""

BOX = "#F0E442"
"""The box that SAM was told."""

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""For lines on white, in this order: the palette without its yellow, which white swallows."""
