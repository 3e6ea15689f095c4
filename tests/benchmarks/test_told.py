"""Tables that README and the docs have by hand: their numbers are those of the records."""

import csv
import statistics

import arithmetic
import claims
import launches
import mixture
import paired
import per_task
import pytest
import records
import step
import writeup

ROOT = step.FOLDER.parents[1]
REAL = ROOT / 'benchmarks' / 'real'
GROUPS = writeup.SUITE.groups

SPEED = {
    'GLEAM-L': 'gleam-l',
    'GLEAM-T': 'gleam-t',
    'FacT': 'fact',
    'LoRA, every Linear': 'lora, every Linear',
    'LoRA-8 on every Linear': 'lora, every Linear',
    '每个 Linear 上的 LoRA': 'lora, every Linear',
    "MMPretrain's LoRAModel, every Linear": "MMPretrain's LoRAModel, every Linear",
    "MMPretrain's LoRAModel-8 on every Linear": "MMPretrain's LoRAModel, every Linear",
    '每个 Linear 上的 MMPretrain LoRAModel': "MMPretrain's LoRAModel, every Linear",
}
ON_A_CARD = {
    **SPEED,
    **dict.fromkeys(('the limit', 'the backbone'), 'limit'),
    'GLEAM-L, without the kernel below': 'gleam-l, without its kernel',
    **dict.fromkeys(("the limit, timm's ViT", "the backbone, timm's ViT"), 'limit (timm)'),
    "GLEAM-L, timm's ViT": 'gleam-l (timm)',
    "LoRA-8 on every Linear, timm's ViT": 'lora, every Linear (timm)',
    "HF PEFT's LoRA-8 on every Linear, timm's ViT": "HF PEFT's LoRA, every Linear (timm)",
}
METHODS = {
    'LoRA, rank 8 on qkv': 'lora',
    'LoRA，qkv 上秩为 8': 'lora',  # noqa: RUF001
    'LoRA, rank 16 on every Linear': 'lora-all',
    'LoRA，每个 Linear 上秩为 16': 'lora-all',  # noqa: RUF001
    **{f'GLEAM-{size}, random start': f'gleam-{size.lower()}-uniform' for size in 'LT'},
    **{f'GLEAM-{size}，随机初始化': f'gleam-{size.lower()}-uniform' for size in 'LT'},  # noqa: RUF001
}
TIMES = [(backbone, what) for backbone in ('vit-b', 'swin-b') for what in ('time', 'memory')]
ALL_TIMES = [*TIMES[:2], ('vit-b', 'evaluation'), *TIMES[2:], ('swin-b', 'evaluation')]


def table(page, head):
    """Name -> the other cells, of the table that begins with ``head``."""
    lines = (ROOT / page).read_text('utf-8').split(head)[1].split('\n\n')[0].splitlines()
    rows = [line.strip('| ').split(' | ') for line in lines[2:]]
    assert len(rows) > 2
    return {name.strip('`'): [cell.strip('*') for cell in cells] for name, *cells in rows}


def method(name):
    return METHODS.get(name, name.lower())


class Trainings:
    """What tables tell of a record's final trainings."""

    def __init__(self, folder, tuned):
        rows = records.read(folder / records.CSV)
        rows = [row for row in rows if tuned is None or (row.study in claims.TUNED) == tuned]
        self.scores, self.parameters = records.scores(rows), records.parameters(rows)

    def tasks(self, name):
        return paired.task_means(self.scores[name])

    def groups(self, name):
        tasks = self.tasks(name)
        return [statistics.fmean(tasks[task] for task in group.tasks) for group in GROUPS]


@pytest.mark.parametrize(
    'page, head, columns',
    [
        ('README.md', '| | ViT-B: time |', TIMES),
        ('README.zh-CN.md', '| | ViT-B', TIMES),
        ('docs/explain/cost.md', '| | ViT-B, training', ALL_TIMES),
    ],
)
def test_what_a_step_costs(page, head, columns):
    measured = {
        (setting.backbone, setting.mode, row.contender): row
        for setting, rows in step.read(step.FOLDER / 'step.csv').items()
        for row in rows
        if (setting.device, setting.batch) == ('cpu', 4)
    }
    for name, cells in table(page, head).items():
        numbers = [number for cell in cells for number in cell.split(', ')]
        for told, (backbone, what) in zip(numbers, columns, strict=True):
            mode = step.EVALUATION if what == 'evaluation' else step.TRAINING
            row = measured[backbone, mode, SPEED[name]]
            assert told == f'{row.memory if what == "memory" else row.time:.2f}', (name, backbone)


def test_what_a_step_costs_on_a_gpu():
    measured = {
        (setting.batch, setting.cuda_graph, row.contender): row
        for setting, rows in step.read(step.FOLDER / 'step.csv').items()
        for row in rows
        if (setting.device, setting.backbone) == ('cuda', 'vit-b')
        and (setting.mode, setting.dtype) == (step.TRAINING, 'bf16')
    }
    columns = [(batch, graph) for batch in (32, 128) for graph in (False, True)]
    for name, cells in table('docs/explain/cost.md', '| | batch 32 | replayed |').items():
        for told, column in zip(cells, columns, strict=True):
            row = measured.get((*column, ON_A_CARD[name]))
            limit = name.startswith('the limit')
            time = '' if row is None or limit else f' ({row.time:.2f})'
            assert told == ('—' if row is None else f'{row.images_per_second:,.0f}{time}'), name


def test_what_an_evaluation_costs_on_a_gpu():
    measured = {
        (setting.batch, row.contender): row
        for setting, rows in step.read(step.FOLDER / 'step.csv').items()
        for row in rows
        if (setting.device, setting.mode, setting.compiled) == ('cuda', step.EVALUATION, '')
    }
    for name, cells in table(
        'docs/explain/cost.md', '| | batch 1 | batch 32 | batch 128 |'
    ).items():
        for told, batch in zip(cells, (1, 32, 128), strict=True):
            row = measured[batch, ON_A_CARD[name]]
            time = '' if name.startswith('the backbone') else f' ({row.time:.2f})'
            assert told == f'{row.images_per_second:,.0f}{time}', name


def test_what_is_computed():
    counted = {
        (count.backbone, count.mode, count.contender): count.operations
        for count in arithmetic.read(step.FOLDER / 'arithmetic.csv')
    }
    for name, cells in table('docs/explain/cost.md', '| | ViT-B | ViT-S |').items():
        for told, backbone in zip(cells, ('vit-b', 'vit-s', 'swin-b', 'swin-t'), strict=True):
            ratios = [
                counted[backbone, mode, SPEED[name]] / counted[backbone, mode, 'limit']
                for mode in (step.TRAINING, step.EVALUATION)
            ]
            assert told == '{:.2f} ({:.2f})'.format(*ratios), (name, backbone)


def test_what_was_aimed_at():
    measured = {
        (setting.device, setting.backbone, setting.mode, setting.batch): row
        for setting, rows in step.read(step.FOLDER / 'step.csv').items()
        for row in rows
        if row.contender == 'gleam-l' and not setting.compiled
        if setting.dtype == ('bf16' if setting.device == 'cuda' else 'float32')
        if setting.cuda_graph == (setting.device == 'cuda')
    }
    evaluated = {  # the batch of each row, and its backbones
        4: ('swin-b', 'swin-t'),
        1: ('vit-b', 'vit-s', 'swin-b', 'swin-t'),
        32: ('vit-s', 'swin-t'),
    }
    trained = [('cpu', name, step.TRAINING, 4) for name in ('swin-b', 'swin-t')]
    on_card = [('cuda', 'vit-b', step.TRAINING, batch) for batch in (32, 128)]
    vit = measured['cpu', 'vit-b', step.TRAINING, 4]
    reached = [
        [vit.memory, vit.time],
        [measured[place].time for place in trained],
        *(
            [measured['cpu', name, step.EVALUATION, batch].time for name in names]
            for batch, names in evaluated.items()
        ),
        [measured[place].time for place in on_card],
    ]
    told = table('docs/explain/cost.md', '| | aim | reached |').values()
    assert [cells[1] for cells in told] == [
        ', '.join(f'{number:.2f}' for number in numbers) for numbers in reached
    ]


def test_what_ways_to_mix_take():
    times = {
        (row.form, row.shape): f'{row.time:.2f}'
        for row in mixture.read(step.FOLDER / 'mixture.csv')
        if row.setting == ('cpu', 'float32', 4, False)
    }
    head = '| | ViT | Swin, 56 x 56 | 64 windows |'
    shapes = ('ViT', 'Swin, 56 x 56', '64 windows', '16 windows')
    for name, told in table('docs/explain/cost.md', head).items():
        assert told == [times.get((name, shape), '—') for shape in shapes], name
    assert (
        f'channels last takes {times["the same, channels last", "ViT"]} of the time on a ViT and '
        f"{times['the same, channels last', 'Swin, 56 x 56']} on a Swin's first stage, unfolding "
        f'{times["unfold, one product", "Swin, 7 x 7"]} on the few tokens of its last stage and '
        f'{times["unfold, one product", "Swin, 56 x 56"]} on those of the first.'
    ) in ' '.join((ROOT / 'docs' / 'explain' / 'cost.md').read_text('utf-8').split())


def test_what_a_step_launches():
    counted = {
        (count.contender, count.dtype): count.kernels
        for count in launches.read(step.FOLDER / 'launches.csv')
    }
    names = {**ON_A_CARD, 'GLEAM-L, without the kernel below': 'gleam-l'}  # a CPU has none
    for name, told in table('docs/explain/cost.md', '| | float32 |').items():
        own = names[name]
        limit = 'limit (timm)' if own.endswith('(timm)') else 'limit'
        cells = []
        for dtype in launches.TYPES:
            kernels = counted[own, dtype]
            cells += [f'{kernels:,}', f'{kernels / counted[limit, dtype]:.2f}']
        assert told == cells, name


@pytest.mark.parametrize(
    'page, head',
    [
        ('README.md', '| mean of nine tasks, three seeds |'),
        ('README.zh-CN.md', '| 九个任务、三个种子的平均 |'),
    ],
)
def test_minivtab(page, head):
    record = Trainings(records.FOLDER, tuned=True)
    for name, told in table(page, head).items():
        own = method(name)
        mean = statistics.fmean(record.tasks(own).values())
        assert told == [f'{record.parameters[own]:,}', f'{mean:.1f}'], name


@pytest.mark.parametrize(
    'page, head, tuned',
    [
        ('docs/minivtab.md', '| | parameters | natural |', True),
        ('docs/advice.md', '| method | parameters | natural |', False),
    ],
)
def test_groups_of_minivtab(page, head, tuned):
    record = Trainings(records.FOLDER, tuned)
    for name, told in table(page, head).items():
        own = method(name)
        groups = record.groups(own)
        numbers = [f'{value:.1f}' for value in (*groups, statistics.fmean(groups))]
        assert told[:5] == [f'{record.parameters[own]:,}', *numbers], name
        for deviation in told[5:]:
            tasks = writeup.SUITE.tasks
            assert deviation == f'{per_task.deviation(record.scores[own], tasks):.2f}', name


@pytest.mark.parametrize(
    'page, head',
    [
        ('README.md', '| | parameters | CIFAR-10 | hand'),
        ('README.zh-CN.md', '| | 参数量 | CIFAR-10'),
    ],
)
def test_the_real_backbone(page, head):
    told_tasks = (
        'cifar10', 'signs', 'solar', 'land', 'letters', 'count', 'distance', 'orientation'
    )  # fmt: skip
    record = Trainings(REAL, tuned=None)
    for name, told in table(page, head).items():
        own = method(name)
        tasks = [record.tasks(own)[f'real-{task}'] for task in told_tasks]
        numbers = [f'{value:.1f}' for value in (*tasks, statistics.fmean(tasks))]
        assert told == [f'{record.parameters[own]:,}', *numbers], name


def test_the_probe_of_minivtab():
    with (ROOT / 'benchmarks' / 'minivtab' / 'probe.csv').open(encoding='utf-8') as file:
        probed = {
            (row['task'], row['backbone']): float(row['test']) for row in csv.DictReader(file)
        }
    told = table('docs/minivtab.md', '| task | chance | probe, vit-mini | probe, swin-mini |')
    tasks = {task for task, _ in probed}
    assert tasks < told.keys() and len(probed) == 2 * len(tasks) == 18
    for task in tasks:
        cells = [f'{probed[task, backbone]:.1f}' for backbone in ('vit-mini', 'swin-mini')]
        assert told[task][1:] == cells, task
    groups = {name: cells[1:] for name, cells in told.items() if name.endswith(', mean')}
    for index, backbone in enumerate(('vit-mini', 'swin-mini')):
        for name, cells in groups.items():
            mean = statistics.fmean(probed[task, backbone] for task in GROUPS[name.split(',')[0]])
            assert float(cells[index]) == pytest.approx(mean, abs=0.06), name
