"""Whether files of weights are what was written, as far as they can tell."""

import zipfile
from pathlib import Path

from safetensors import safe_open

from gleam_mm.checkpoint.adapter import DIGEST, read_adapter
from gleam_mm.checkpoint.files import resolve_path
from gleam_mm.checkpoint.reading import load_from_local


def verify(path: str | Path) -> str:
    """Reads a file in full and checks what it has to be checked by.

    Args:
        path: As in :func:`~gleam_mm.checkpoint.resolve_path`.

    Returns:
        What was checked, in a few words.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or asks for more than a checkpoint needs.
    """
    path = resolve_path(path)
    content = load_from_local(str(path))
    if path.suffix != '.safetensors':
        if not zipfile.is_zipfile(path):
            return 'can be read; the format of torch before 1.6 has no checksums'
        with zipfile.ZipFile(path) as archive:
            return f'whole by the CRC-32 of its {len(archive.infolist())} records'
    with safe_open(path, framework='pt') as file:
        header = file.metadata() or {}
    if DIGEST not in header:
        return f'can be read; its {len(content["state_dict"])} tensors have no checksum'
    tensors, _ = read_adapter(path)
    return f'whole by the SHA-256 of its {len(tensors)} tensors and metadata'
