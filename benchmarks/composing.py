"""What trained adapters are worth to a new task: AdapterFusion, Arrow, EigenLoRA, and a teacher.

Trains LoRAs on three tasks of MiniVTAB with vit-mini. Then the handwritten digits come with few
pictures, which a head alone, a LoRA of its own, and the methods that are made of the three learn.
At last a LoRA that has seen more digits teaches swin-mini on pictures without labels; swin-mini
also learns from the few that have some. Prints accuracies on the test split. Trainings that are
there already are not repeated.

    python benchmarks/composing.py [--pictures 100] [--epochs 8] [--work-dir work_dirs/composing]
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from gleam_mm.checkpoint import ADAPTER, read_adapter
from gleam_mm.config import recipes
from gleam_mm.engine.launch import build_training
from gleam_mm.models import params
from gleam_mm.models.building import load_model

LIBRARY = ('letters', 'textures', 'land')
TARGET = 'digits'


def train(
    recipe: str, folder: Path, pictures: int, epochs: int, tested: bool = True, **options: Any
) -> Path:
    """The adapter of a training that does not validate; it is tested at its end."""
    folder = folder.with_name(f'{folder.name}-{pictures}')
    adapter = folder / ADAPTER
    if adapter.exists():
        metadata = read_adapter(adapter)[1]
        if metadata['epoch'] == epochs and ('test' in metadata['metrics'] or not tested):
            return adapter
        shutil.rmtree(folder)
    short = {
        'train_cfg.max_epochs': epochs,
        'train_dataloader.dataset.indices': pictures,
        **dict.fromkeys(('val_dataloader', 'val_cfg', 'val_evaluator')),
        'log_level': 'WARNING',
    }
    runner = build_training(recipes.load(recipe, {**short, **options}), str(folder))
    runner.train()
    if tested:
        runner.test()
    return adapter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--pictures', type=int, default=100, help='labelled ones of the new task')
    parser.add_argument('--many', type=int, default=400, help='of a task of the library, a teacher')
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/composing'))
    args = parser.parse_args()
    root, few, many = args.work_dir, args.pictures, args.many

    def lora(task: str, name: str, tested: bool) -> str:
        recipe = f'vit-mini_lora_mini-{task}'
        return str(train(recipe, root / name, many, args.epochs // 2, tested))

    library = {f'model.adapters.{task}': lora(task, task, False) for task in LIBRARY}
    teacher = lora(TARGET, 'teacher', True)
    taught = {'model.teacher.checkpoint': teacher, 'model.teacher.label_weight': 0}
    fusion = {'model.petl.type': 'AdapterFusion', 'model.petl.rank': 16, 'model.petl.value': False}
    contenders: dict[str, tuple[str, int, int, dict[str, Any]]] = {
        'head': ('vit-mini_linear', few, args.epochs, {}),
        'LoRA': ('vit-mini_lora', few, args.epochs, {}),
        'AdapterFusion': ('vit-mini_linear', few, args.epochs, {**library, **fusion}),
        'Arrow': ('vit-mini_linear', few, args.epochs, {**library, 'model.petl.type': 'Arrow'}),
        'EigenLoRA': ('vit-mini_eigen-lora', few, args.epochs, library),
        'swin-mini, few labels': ('swin-mini_lora', few, args.epochs, {}),
        'swin-mini, taught': ('swin-mini_lora', many, args.epochs // 2, taught),
    }
    print(f'{"":24}{"pictures":>9}{"trained":>9}{"accuracy":>9}')
    _tell('teacher', many, Path(teacher))
    for name, (recipe, pictures, epochs, options) in contenders.items():
        folder = root / name.replace(', ', '-').replace(' ', '-')
        adapter = train(f'{recipe}_mini-{TARGET}', folder, pictures, epochs, **options)
        _tell(name, pictures, adapter)


def _tell(name: str, pictures: int, adapter: Path) -> None:
    trained = params.count(load_model(checkpoint=adapter)).trainable
    accuracy = read_adapter(adapter)[1]['metrics']['test']['accuracy/top1']
    print(f'{name:24}{pictures:>9}{trained:>9,}{accuracy:>9.1f}', flush=True)


if __name__ == '__main__':
    main()
