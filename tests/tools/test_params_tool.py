"""tools/params.py: exact numbers, with neither weights nor data on disk."""

import pytest


def numbers(out):
    """Recipe -> cells of its row."""
    header, _, *rows = (line.split() for line in out.splitlines())
    assert header == ['recipe', 'trainable', 'shared', 'local', 'head', 'frozen', 'adapter']
    return {row[0]: row[1:6] for row in rows if row}


def test_vit_b(call):
    names = [
        f'vit-b_{name}_vtab-cifar' for name in ('gleam-t', 'gleam-b', 'gleam-l', 'lora', 'full')
    ]
    done = call('params.py', *names)
    assert done.code == 0
    head, frozen = '76,900', '85,798,656'  # (768 + 1) * 100
    assert numbers(done.out) == dict(
        zip(
            names,
            [
                ['9,056', '6,752', '2,304', head, frozen],
                ['23,872', '14,656', '9,216', head, frozen],
                ['70,784', '33,920', '36,864', head, frozen],
                ['294,912', '0', '294,912', head, frozen],
                ['85,798,656', '0', '0', head, '0'],
            ],
            strict=True,
        )
    )


@pytest.mark.parametrize(('rank', 'parameters'), [(4, '8,448'), (8, '21,504'), (16, '61,440')])
def test_fact(call, rank, parameters):
    done = call('params.py', 'vit-b_fact_vtab-dtd', '--cfg-options', f'model.petl.rank={rank}')
    assert numbers(done.out)['vit-b_fact_vtab-dtd'][0] == parameters


@pytest.mark.parametrize(('rank', 'parameters'), [(20, '206,560'), (16, '144,512')])
def test_swin_b(call, rank, parameters):
    name = 'swin-b_gleam-l_vtab-cifar'
    done = call('params.py', name, '--cfg-options', f'model.petl.rank={rank}')
    assert numbers(done.out)[name][0] == parameters


def test_classes_that_only_the_data_can_tell(call):
    done = call('params.py', 'vit-b_linear_folder')
    assert done.code == 0
    assert numbers(done.out)['vit-b_linear_folder'] == ['0', '0', '0', '?', '85,798,656']


def test_timm_counts_the_same_and_prints_nothing_else(call):
    done = call('params.py', 'timm-vit-b_gleam-l_vtab-cifar')
    assert len(done.out.splitlines()) == 3
    assert numbers(done.out)['timm-vit-b_gleam-l_vtab-cifar'][0] == '70,784'


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['vit-b_gleam_vtab-cifar'], "unknown method 'gleam'"),
        (['vit-b_lora_vtab-cifar', '--cfg-options', 'model.petl.rank=0'], 'rank=0'),
        (['vit-b_gleam-l_vtab-cifar', '--cfg-options', 'model.petl.top_k=9'], 'top_k=9'),
        (['vit-b_lora_vtab-cifar', '--cfg-options', 'model.petl.sites=[qvk]'], "'qvk'"),
        (['vit-b_lora_vtab-cifar', '--cfg-options', 'model.petl.rnak=4'], 'rnak'),
        (['vit-b_lora_vtab-cifar', '--cfg-options', 'model.backbone.type=ViTT'], 'ViTT'),
    ],
)
def test_mistakes_take_one_line_and_exit_with_2(call, arguments, told):
    done = call('params.py', *arguments)
    assert done.code == 2
    assert done.err.startswith('params.py: error: ')
    assert told in done.err
    assert 'Traceback' not in done.err


@pytest.mark.slow
def test_the_papers_table(call):
    done = call('params.py', '--table1')
    assert done.code == 0
    header, _, *lines = done.out.splitlines()
    start = header.index('preset')
    rows = {line[start:].split()[0]: line[start:].split()[1:4] for line in lines}
    # Preset -> our count, and what the paper prints, in millions.
    assert {preset: (row[0], row[2]) for preset, row in rows.items()} == {
        'full': ('85,798,656', '85.8'),
        'linear': ('0', '0'),
        'bitfit': ('102,912', '0.10'),
        'vpt-shallow': ('38,400', '0.06'),
        'vpt-deep': ('460,800', '0.53'),
        'adapter': ('156,768', '0.16'),
        'adaptformer': ('156,768', '0.16'),
        'lora': ('294,912', '0.29'),
        'noah': ('654,456', '0.36'),
        'fact-tk': ('86,528', '0.07'),
        'ssf': ('205,824', '0.24'),
        'repadapter': ('239,808', '0.22'),
        'gleam-t': ('9,056', '0.009'),
        'gleam-b': ('23,872', '0.02'),
        'gleam-l': ('70,784', '0.07'),
    }
    # Where the two differ by more than rounding, the table says why.
    for line, (count, millions, printed) in zip(lines, rows.values(), strict=True):
        digits = len(printed.partition('.')[2])
        assert round(float(millions), digits) == float(printed) or line.endswith(
            ('tasks', 'own p', 'own rank', 'too', 'out')
        ), count


def test_the_papers_table_stands_alone(call):
    assert 'give configs or recipes, or else --table1' in call('params.py').err
    assert call('params.py', '--table1', 'vit-b_lora_vtab-dtd').code == 2
