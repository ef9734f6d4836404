"""pixsieve: piles of raw images in, curated and training-ready datasets out.

A plain ``import pixsieve`` loads nothing heavy; the public names below are loaded on first use.
"""

__version__ = "0.1.0"
