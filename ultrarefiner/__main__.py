"""``python -m ultrarefiner``: the command line, where the script ``ultrarefiner`` is not on the path."""

from __future__ import annotations

import sys

from ultrarefiner.cli import main

if __name__ == "__main__":
    sys.exit(main())
