"""The manifest beside the lists of a prepared task: where its images were chosen from."""

import json
from pathlib import Path

from gleam_mm.fileio import write_bytes

NAME = 'manifest.json'

# What `choice` may be.
TFDS_ORDER = 'tfds-order'  # exactly the images of VTAB-1K
TFDS_UNOFFICIAL = 'tfds-unofficial'  # the same rule on a copy that is not VTAB's
PUBLISHED_LISTS = 'published-lists'  # exactly the images of the few-shot benchmark
SEEDED = 'seeded-stratified'  # as many images, others: not comparable with published numbers


def read_manifest(folder: Path) -> dict | None:
    """The manifest of a task's folder, or None where there is none that can be read."""
    try:
        manifest = json.loads((folder / NAME).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def write_manifest(folder: Path, manifest: dict) -> None:
    """Writes the manifest, at once."""
    write_bytes(folder / NAME, (json.dumps(manifest, indent=1) + '\n').encode())
