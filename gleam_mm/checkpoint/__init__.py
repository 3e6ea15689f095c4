"""Weights in files: backbones, checkpoints and adapters.

Reading one runs nothing that it asks for. Converting key names (:mod:`.convert`) and downloading
pretrained weights (:mod:`.pretrained`) are tools on top, imported by name.
"""

from gleam_mm.checkpoint.adapter import (
    ADAPTER,
    describe,
    load_adapter,
    read_adapter,
    require_backbone,
    save_adapter,
)
from gleam_mm.checkpoint.backbone import load_backbone
from gleam_mm.checkpoint.files import SCHEME, CheckpointError, require_file, resolve_path
from gleam_mm.checkpoint.fingerprint import fingerprint
from gleam_mm.checkpoint.identity import DESCRIBED, FINGERPRINT
from gleam_mm.checkpoint.reading import (
    classes_of,
    classes_of_meta,
    load_from_local,
    read_state_dict,
)

__all__ = [
    'ADAPTER',
    'DESCRIBED',
    'FINGERPRINT',
    'SCHEME',
    'CheckpointError',
    'classes_of',
    'classes_of_meta',
    'describe',
    'fingerprint',
    'load_adapter',
    'load_backbone',
    'load_from_local',
    'read_adapter',
    'read_state_dict',
    'require_backbone',
    'require_file',
    'resolve_path',
    'save_adapter',
]
