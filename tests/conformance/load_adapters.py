"""Loads adapters in a process of its own, and writes what the models say (see test_parameters.py).

Usage: load_adapters.py FOLDER
"""

import json
import sys
import traceback
from pathlib import Path

import torch

import gleam_mm  # noqa: F401  (applies the patches that importing mmpretrain may need)

sys.path.insert(0, str(Path(__file__).parent.parent))

from cases import CASES, build_classifier, logits

from gleam_mm.checkpoint import load_adapter

folder = Path(sys.argv[1])
images = torch.load(folder / 'images.pt')
outputs: dict[str, torch.Tensor | str] = {}
for name, row, kind in json.loads((folder / 'jobs.json').read_text()):
    try:
        with torch.no_grad():
            classifier = build_classifier(CASES[row], kind, seed=7)  # not the seed of the writer
            load_adapter(classifier, folder / f'{name}.safetensors')
            outputs[name] = logits(classifier, images)
    except Exception:
        outputs[name] = traceback.format_exc()
torch.save(outputs, folder / 'outputs.pt')
