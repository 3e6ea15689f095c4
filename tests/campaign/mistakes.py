"""Makes every mistake of a list, and counts how many are told in one clear line.

    python tests/campaign/mistakes.py

Each is an override of a recipe, or flags of a tool, that cannot be meant. It is clear if the tool
ends with a status that is not 0, tells it in one line that names the key or the value, and leaves
no checkpoint behind. Prints what was tried and what passed, by kind, every one that is not clear,
and exits with 1 if there is any.
"""

import contextlib
import io
import runpy
import sys
import tempfile
from pathlib import Path

from mmengine.logging import MessageHub, MMLogger
from mmpretrain.visualization import UniversalVisualizer
from tally import Tally

TOOLS = Path(__file__).parents[2] / 'tools'

RECIPE = 'vit-mini_gleam-l_mini-digits'

NUMBERS = ('0', '-1', '1.5', 'abc', 'None')
"""What no count of things is."""

COUNTS = (
    *('train_cfg.max_epochs', 'train_cfg.val_interval', 'train_dataloader.batch_size'),
    *('val_dataloader.batch_size', 'test_dataloader.batch_size'),
    *('default_hooks.checkpoint.interval', 'default_hooks.logger.interval'),
    *('optim_wrapper.accumulative_counts', 'model.head.in_channels'),
)
METHODS = {
    'adapter': ('bottleneck',),
    'adaptformer': ('bottleneck',),
    'convpass': ('bottleneck',),
    'fact': ('rank',),
    'gleam-l': ('rank', 'num_experts', 'top_k'),
    'glora': ('rank',),
    'lora': ('rank',),
    'repadapter': ('rank', 'groups'),
    'slora': ('rank',),
    'vpt-deep': ('num_prompts',),
}
"""Method -> its arguments that count something."""

OTHERS = {
    'floats of methods': [
        f'method={method} model.petl.{name}={value}'
        for method, name in (
            *(('lora', 'alpha'), ('fact', 'alpha'), ('gleam-l', 'alpha'), ('convpass', 'scale')),
            *(('adaptformer', 'scale'), ('repadapter', 'scale')),
        )
        for value in ('nan', 'inf', 'abc', 'True')
    ],
    'dropout': [
        f'method={method} model.petl.drop_rate={value}'
        for method in ('lora', 'fact', 'convpass', 'adaptformer', 'repadapter', 'vpt-deep')
        for value in ('2', '-0.1', 'no')
    ],
    'choices': [
        'method=fact model.petl.form=cp',
        'model.petl.gate=imgae',
        'model.petl.moe_side=left',
        'model.petl.expert_init=zero',
        'model.petl.gate_init=kaiming',
        'model.petl.local_init=ones',
        'model.petl.moe=no',
        'model.petl.expert_bias=1',
        'model.petl.renormalize=yes',
        'model.petl.normalize=on',
    ],
    'sites and blocks': [
        'model.petl.sites=qkv',
        'model.petl.sites=[]',
        'model.petl.sites=[qkv,qkv]',
        'model.petl.sites=[qvk]',
        'model.petl.blocks=[]',
        'model.petl.blocks=[0,0]',
        'model.petl.blocks=[99]',
        'model.petl.blocks=2',
        'model.petl.blocks=[a]',
    ],
    'names': [
        'modle.petl.rank=4',
        'train_cgf.max_epochs=1',
        'model.petl.rnak=4',
        'model.petl.alhpa=1',
        'model.petl.type=LoRAA',
        'method=lroa',
        'optim_wrapper.optimizer.type=AdamX',
        'optim_wrapper.type=NoWrapper',
        'train_dataloader.dataset.type=NoDataset',
        'default_hooks.checkpoint.save_best=accuracy/top7',
        'model.head.type=NoHead',
        'model.backbone.type=NoBackbone',
    ],
    'rates and statistics': [
        *(f'optim_wrapper.optimizer.lr={value}' for value in ('nan', 'inf', '-1', 'abc', 'None')),
        *(f'optim_wrapper.optimizer.weight_decay={value}' for value in ('nan', '-1', 'abc')),
        'data_preprocessor.std=[0,1,1]',
        'data_preprocessor.std=[1,1]',
        'data_preprocessor.mean=[1,1]',
        'data_preprocessor.mean=abc',
        'data_preprocessor.normalize=imagenetz',
    ],
    'sizes and classes': [
        'model.backbone.img_size=33',
        'model.backbone.patch_size=0',
        'model.backbone.patch_size=5',
        'model.head.num_classes=0',
        'model.head.num_classes=3',
        'model.head.num_classes=abc',
        'model.head.in_channels=5',
        'model.head=None',
        'train_dataloader.dataset.indices=[]',
        'test_dataloader.dataset.indices=[]',
        'train_dataloader.drop_last=True train_dataloader.batch_size=99',
        'train_dataloader.dataset.task=digit',
        'test_dataloader.dataset.split=tset',
        'model.petl.top_k=9',
        'model.petl.scales=[1,2]',
        'method=repadapter model.petl.groups=3',
        'method=vpt-deep model.petl.num_prompts=[1,2]',
        'method=vpt-deep model.petl.num_prompts=[0,0,0,0,0,0,0,0]',
        'method=vpt-shallow model.petl.blocks=[0]',
    ],
    'seeds and workers': [
        'randomness.seed=-1',
        'randomness.seed=abc',
        'train_dataloader.num_workers=-1',
        'train_dataloader.num_workers=abc',
    ],
}

FLAGS = [
    ('train.py', RECIPE, '--cfg-options', 'model.petl.rank'),
    ('train.py', RECIPE, '--cfg-options', '=4'),
    ('train.py', RECIPE, '--cfg-options', 'param_scheduler.0.type=NoSchedule'),
    ('train.py', RECIPE, '--cfg-options', 'key=(a),(b)'),
    ('train.py', RECIPE, '--seed', 'abc'),
    ('train.py', RECIPE, '--launcher', 'ssh'),
    ('train.py', RECIPE, '--resume', 'missing.pth'),
    ('train.py', RECIPE, '--rseume'),
    ('train.py', 'vit-mini_gleam-l_mini-digist'),
    ('train.py', 'vit-mini_gleam-l'),
    ('train.py', 'missing.py'),
    ('train.py',),
    ('test.py', RECIPE),
    ('test.py', RECIPE, 'missing.safetensors'),
    ('test.py', RECIPE, 'missing.pth', '--out', 'x.txt'),
    ('test.py', RECIPE, 'missing.pth', '--out', 'x.json'),
    ('test.py', RECIPE, 'missing.pth', '--out-item', 'metrics'),
    ('test.py', RECIPE, 'missing.pth', '--interval', '0'),
    ('test.py', RECIPE, 'missing.pth', '--wait-time', 'nan'),
    ('test.py', RECIPE, 'missing.pth', '--tta'),
    ('train.py', RECIPE, '--best', '--no-validate'),
    ('analyze.py', 'homogeneity', 'missing.safetensors'),
    ('merge.py', RECIPE, 'missing.pth', 'out.onnx'),
    ('merge.py', RECIPE, 'missing.pth', 'out.pth'),
    ('convert_weights.py', 'missing.npz'),
    ('recipes.py', '--bogus'),
    ('params.py', 'no-recipe'),
]


def mistakes() -> dict[str, list[tuple[str, ...]]]:
    """Kind -> mistakes, each a tool and its arguments."""
    kinds = {
        'counts': [
            f'{key}={number}'
            for key in COUNTS
            for number in NUMBERS
            if (key, number) != ('default_hooks.checkpoint.interval', '-1')  # never
        ],
        'counts of methods': [
            f'method={method} model.petl.{name}={number}'
            for method, names in METHODS.items()
            for name in names
            for number in NUMBERS
        ],
        **OTHERS,
    }
    train = ('train.py', RECIPE, '--cfg-options')
    short = ('train_cfg.max_epochs=1', 'param_scheduler=None')
    short = (*short, 'train_dataloader.dataset.indices=64')
    return {
        **{
            kind: [(*train, *short, *options.split()) for options in every]
            for kind, every in kinds.items()
        },
        'flags': FLAGS,
    }


def called(tool: str, *arguments: str) -> tuple[int, str]:
    """Runs a tool in this process; its status and what it told on standard error."""
    told, status = io.StringIO(), 0
    for shared in (MMLogger, MessageHub, UniversalVisualizer):
        shared._instance_dict.clear()  # of the run before, if it was in the same second
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        sys.argv = [str(TOOLS / tool), *arguments]
        try:
            runpy.run_path(str(TOOLS / tool), run_name='__main__')
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except Exception as error:
            return 1, f'Traceback: {error!r}'
    return status, told.getvalue()


def fault(folder: Path, tool: str, *arguments: str) -> str | None:
    """What is not clear about how a mistake ends, or None; it is made in a folder of its own."""
    folder.mkdir()
    with contextlib.chdir(folder):
        status, told = called(tool, *arguments)
        left = [str(path) for path in Path().rglob('*') if path.suffix in ('.pth', '.safetensors')]
    lines = [line for line in told.splitlines() if line.strip() and 'Warning' not in line]
    errors = [line for line in lines if 'error: ' in line]
    if status == 0:
        return 'accepted'
    if 'Traceback' in told or len(errors) != 1:
        return f'not one line: {lines[-1:]}'
    if left:
        return f'left {left}'
    word = arguments[-1].partition('=') if arguments else ('', '', '')
    value = word[2].strip('[]')
    names = [word[0].rpartition('.')[2], word[0], value] if word[1] else [arguments and word[0]]
    if tool == 'train.py' and word[1] and not any(name and name in errors[0] for name in names):
        return f'does not name the key: {errors[0]}'
    return None


def main() -> None:
    """Runs the campaign."""
    tally = Tally()
    # One folder for all, removed at the end: what MMEngine keeps of a run may still write to it.
    with tempfile.TemporaryDirectory() as root:
        for kind, every in mistakes().items():
            for mistake in every:
                reason = fault(Path(root, str(tally.tried.total())), *mistake)
                tally.add(kind, ' '.join((mistake[0], *mistake[1:][-2:])), reason)
    tally.finish()


if __name__ == '__main__':
    with contextlib.redirect_stdout(io.StringIO()):
        import gleam_mm.cli  # noqa: F401
        import gleam_mm.config.recipes  # noqa: F401
        import gleam_mm.engine.launch  # noqa: F401
        import gleam_mm.engine.summary  # noqa: F401

    main()
