"""Trains in one process and in two, on the same global batches, and tells how far they end apart.

    python tests/campaign/processes.py

The two talk through gloo. Each method is trained with AdamW and with SGD, six steps on the same
eight images without noise: for each the largest difference of a trained number, that among the
biases of keys apart, and how far training has moved numbers at most. Besides, what each process
draws for the gate's noise, dropout and the path of a supernet. Exits with 1 if SGD ends further
apart than rounding, if processes draw the same noise, or another path.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / 'engine')]

import gleam_mm  # noqa: E402, F401

# isort: split

import torch  # noqa: E402
from conftest import make_classifier as fixture  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.dist import get_rank, get_world_size  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from runs import build  # noqa: E402
from test_two_processes import STILL, WIDTH  # noqa: E402

from gleam_mm.engine import init_dist  # noqa: E402
from gleam_mm.engine.dist import unwrapped  # noqa: E402

METHODS = {
    'LoRA': {},
    'BitFit': {},
    'SSF': {},
    'GLoRA': {'sites': ['qkv', 'fc1']},
    'FullTuning': {},
    'NOAH': {},
}
OPTIMIZERS = {
    'AdamW': dict(type='AdamW', lr=1e-2, weight_decay=0.0),
    'SGD': dict(type='SGD', lr=0.1, momentum=0.9),
}
ROUNDING = 1e-4  # of how far training has moved a number


class Drawn(Hook):
    """Notes what is drawn before each step, and which path a supernet takes."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.noise: list[float] = []
        self.paths: list[str] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Draws one number, and puts the generator back."""
        state = torch.get_rng_state()
        self.noise.append(torch.rand(()).item())
        torch.set_rng_state(state)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Notes the path that the step has taken."""
        self.paths.append(str(getattr(unwrapped(runner.model).petl, '_current', None)))


def train(folder: Path) -> None:
    """Trains every method with every optimizer, in this process of one or two."""
    warnings.simplefilter('ignore')
    config = Config(dict(launcher='pytorch'))
    if os.environ.get('WORLD_SIZE'):
        init_dist(config)
    make_classifier = fixture.__wrapped__()
    found = {}
    for method, options in METHODS.items():
        for name, optimizer in OPTIMIZERS.items():
            model, drawn = make_classifier(method, num_classes=2, **options), Drawn()
            start = {k: v.detach().clone() for k, v in model.named_parameters() if v.requires_grad}
            build(
                model,
                folder / f'{method} {name}',
                loader=dict(
                    batch_size=8 // get_world_size(),
                    dataset=STILL,
                    sampler=dict(type='DefaultSampler', shuffle=False),
                ),
                optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer),
                train_cfg=dict(by_epoch=True, max_epochs=6),
                param_scheduler=None,
                script=(),
                checkpoint=dict(save_best=None),
                hooks=[drawn],
                cfg={'model_wrapper_cfg': config.get('model_wrapper_cfg')},
                launcher='pytorch' if config.get('model_wrapper_cfg') else 'none',
            ).train()
            trained = dict(model.named_parameters())
            found[f'{method} {name}'] = {
                'weights': {key: trained[key].detach() for key in start},
                'start': start,
                'noise': drawn.noise,
                'paths': drawn.paths,
            }
    torch.save(found, folder / f'{get_rank()}.pth')


def keys_of(name: str, difference: torch.Tensor) -> torch.Tensor:
    """Which numbers of a parameter are biases of keys."""
    mask = torch.zeros_like(difference, dtype=torch.bool)
    if name.endswith('qkv.bias'):
        mask[WIDTH : 2 * WIDTH] = True
    return mask


def compare(one: dict, two: dict, name: str) -> dict[str, Any]:
    """How far two trainings end apart, and how far they have moved."""
    told: dict[str, Any] = {'keys': 0.0, 'others': 0.0, 'moved': 0.0, 'where': ''}
    for key, ours in one[name]['weights'].items():
        apart = (ours - two[name]['weights'][key]).abs()
        mask = keys_of(key, apart)
        for kind, part in (('keys', apart[mask]), ('others', apart[~mask])):
            most = part.max().item() if part.numel() else 0.0
            if kind == 'others' and most > told[kind]:
                told['where'] = key
            told[kind] = max(told[kind], most)
        told['moved'] = max(told['moved'], (ours - one[name]['start'][key]).abs().max().item())
    return told


def main() -> None:
    """Starts the processes and compares what they give."""
    if len(sys.argv) > 1:
        train(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as root:
        for number in (1, 2):
            folder = Path(root, str(number))
            folder.mkdir()
            processes = []
            for rank in range(number):
                told = dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number))
                told |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=os.environ.get('PORT', '29517'))
                environment = {**os.environ, **(told if number > 1 else {})}
                command = [sys.executable, __file__, str(folder)]
                processes.append(subprocess.Popen(command, env=environment))
            codes = [process.wait() for process in processes]
            if any(codes):
                raise SystemExit('does not train')
        one = torch.load(Path(root, '1', '0.pth'))
        first, second = (torch.load(Path(root, '2', f'{rank}.pth')) for rank in (0, 1))
    failed = []
    print(f'{"method":<18} {"biases of keys":>15} {"all others":>11} {"moved":>9}  most apart')
    for name in one:
        told = compare(one, first, name)
        numbers = f'{told["keys"]:>15.1e} {told["others"]:>11.1e} {told["moved"]:>9.1e}'
        print(f'{name:<18} {numbers}  {told["where"]}')
        if name.endswith('SGD') and max(told['keys'], told['others']) > ROUNDING * told['moved']:
            failed.append(f'{name}: further apart than rounding')
        if {*first[name]['noise']} & {*second[name]['noise']}:
            failed.append(f'{name}: both processes draw the same noise')
        if first[name]['noise'] != one[name]['noise']:
            failed.append(f'{name}: the first process draws another noise than one alone')
        if not one[name]['paths'] == first[name]['paths'] == second[name]['paths']:
            failed.append(f'{name}: processes take other paths')
    print(json.dumps(failed, indent=2) if failed else 'noise differs by process, paths do not')
    sys.exit(bool(failed))


if __name__ == '__main__':
    with DefaultScope.overwrite_default_scope('gleam_mm'):
        main()
