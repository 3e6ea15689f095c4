"""Where the tools are."""

from pathlib import Path

TOOLS = Path(__file__).parents[2] / 'tools'
