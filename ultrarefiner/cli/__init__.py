"""The command ``ultrarefiner``: what the library does, from a shell."""

from __future__ import annotations

from ultrarefiner.cli.command import main

__all__ = ["main"]
