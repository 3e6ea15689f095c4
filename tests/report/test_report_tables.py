"""Which rows and columns the tables of studies have, and what is in them."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report.made import VTAB, final, select, whole

from gleam_mm.errors import UserError
from gleam_mm.models.params import build_bare
from gleam_mm.output import tables
from gleam_mm.report import Study
from gleam_mm.report.build import build, parts
from gleam_mm.report.suites import SUITES
from gleam_mm.sweep.configure import make_sweep
from gleam_mm.sweep.plan import Variant
from gleam_mm.sweep.training import make_config


def all_tables(*studies):
    return [table for part in parts(studies) for table in part.tables]


def table(studies, key):
    studies = studies if isinstance(studies, list) else [studies]
    (found,) = [table for table in all_tables(*studies) if table.key == key]
    return found


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def shown(line):
    return [cell.text for cell in line.cells]


def test_table_1_has_the_papers_columns():
    found = table(whole(), 'vtab-vit-b-tasks')
    assert 'Table 1' in found.title
    assert [column.key for column in found.columns] == ['parameters', *VTAB, 'average']
    groups = [column.group for column in found.columns]
    assert groups == ['', *['Natural'] * 7, *['Specialized'] * 4, *['Structured'] * 8, '']
    assert [(line.label, line.source) for line in found.lines] == [
        ('LoRA', 'measured'),
        ('LoRA', 'paper'),
        ('GLEAM-L', 'measured'),
        ('GLEAM-L', 'paper'),
    ]
    lora, gleam = found.lines[1], found.lines[3]
    assert shown(lora) == ['0.29', *['—'] * 19, '74.5']
    assert shown(gleam)[:4] == ['0.07', '73.2', '92.5', '72.2']
    assert shown(gleam)[-2:] == ['42.0', '76.8']
    assert shown(found.lines[2])[0] == '0.0708'


@pytest.mark.parametrize(('changed', 'beside'), [({}, True), ({'model.petl.rank': 4}, False)])
def test_what_the_papers_numbers_are_is_said_beside_them(changed, beside):
    study = replace(whole(), overrides=changed)
    for key in ('tasks', 'groups'):
        found = table(study, f'vtab-vit-b-{key}')
        assert any(line.source == 'paper' for line in found.lines) == beside
        for written in (tables.markdown, tables.latex, tables.html):
            assert ('on the test split, and print the best' in written(found)) == beside


def test_missing_cells_are_missing():
    results = [final(dataset=task) for task in VTAB[:3]]
    results += [final(dataset=VTAB[3], accuracy=None, state='failed')]
    results += [select(dataset=VTAB[4], accuracy=99)]
    line = table(Study('made', results), 'vtab-vit-b-tasks').lines[0]
    assert shown(line) == ['0.295', '50.0', '50.0', '50.0', *['—'] * 16, '— 3/19']
    assert line.cells[4].note == 'failed'
    assert line.cells[5].note == 'not part of the study'
    groups = table(Study('made', results), 'vtab-vit-b-groups').lines[0]
    assert shown(groups) == ['0.295', '— 3/7', '— 0/4', '— 0/8', '— 3/19']


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_the_papers_row_follows_the_row_with_the_most_tasks(order):
    few, many = (Study(f'{n}', [final(dataset=task) for task in VTAB[:n]]) for n in (1, 3))
    found = table([(few, many)[place] for place in order], 'vtab-vit-b-tasks')
    heads = [(line.label, line.source) for line in found.lines]
    assert heads[heads.index(('LoRA', 'paper')) - 1] == ('LoRA (3)', 'measured')
    assert len(heads) == 3


def test_swins_group_means_are_table_4():
    found = table(whole(('full', 'bitfit'), backbone='swin-b'), 'vtab-swin-b-groups')
    assert 'Table 4' in found.title
    assert [shown(line)[0] for line in found.lines if line.source == 'paper'] == ['86.7', '0.20']
    assert all(set(shown(line)[1:]) == {'—'} for line in found.lines if line.source == 'paper')


def test_glora_makes_table_3():
    found = table(whole(('glora', 'lora', 'gleam-l')), 'vtab-vit-b-glora')
    assert 'Table 3' in found.title
    assert [line.label for line in found.lines] == ['GLoRA', 'GLEAM-L', 'GLEAM-L']


def ablation():
    """Experts, k, alpha and local transforms, each in a study of its own."""
    tasks = SUITES[0].ablation
    return [
        Study(
            name,
            [final('gleam-l', task, accuracy=value, options=options) for task in tasks],
            {f'model.petl.{key}': changed for key, changed in overrides.items()},
        )
        for name, value, options, overrides in (
            ('base', 85, {'top_k': 1, 'alpha': 1.0}, {}),
            ('two', 84, {'top_k': 1, 'alpha': 1.0}, {'num_experts': 2}),
            ('none', 83, {'alpha': 1.0}, {'moe': False}),
            ('k2', 82, {'top_k': 2, 'alpha': 1.0}, {}),
            ('strong', 81, {'top_k': 1, 'alpha': 10}, {}),
            ('shared', 80, {'top_k': 1}, {'local': False}),
        )
    ]


def test_table_2_has_a_section_for_each_factor():
    found = table(ablation(), 'vtab-vit-b-ablation')
    assert 'Table 2' in found.title
    sections, section = {}, ''
    for line in found.lines:
        section = line.section or section
        sections.setdefault(section, []).append(shown(line))
    experts = [cells[1:3] + cells[-1:] for cells in sections['Number of experts n']]
    assert experts == [['—', '—', '83.0'], ['2', '1', '84.0'], ['4', '1', '85.0']]
    chosen = [cells[2:3] + cells[-1:] for cells in sections['Selected experts k']]
    assert chosen == [['1', '85.0'], ['2', '82.0']]
    alpha = [cells[3:4] + cells[-1:] for cells in sections['Scaling factor alpha']]
    assert alpha == [['1', '85.0'], ['10', '81.0']]
    local = [cells[4:5] + cells[-1:] for cells in sections['Local transforms']]
    assert local == [['no', '80.0'], ['yes', '85.0']]
    assert [column.label for column in found.columns][6:] == [
        'CIFAR-100',
        'Caltech101',
        'DTD',
        'Flowers102',
        'Pets',
        'Mean',
    ]


@pytest.mark.parametrize('keys', [('model.petl',), ('model', 'petl')])
def test_overrides_of_the_whole_method_make_the_same_table(keys):
    def whole_of(options):
        options = {key.removeprefix('model.petl.'): value for key, value in options.items()}
        for key in reversed(keys):
            options = {key: options}
        return options

    studies = [replace(study, overrides=whole_of(study.overrides)) for study in ablation()]
    cells, found = (
        [shown(line) for line in table(made, 'vtab-vit-b-ablation').lines]
        for made in (ablation(), studies)
    )
    assert found == cells


@pytest.mark.parametrize(
    'changed',
    [
        {'model.petl.type': 'LoRA', 'model.petl.num_experts': 2},
        {'model.petl': {'_delete_': True, 'type': 'GLEAM', 'num_experts': 2}},
    ],
)
def test_another_method_in_its_place_is_no_ablation(changed):
    base, two, *others = ablation()
    two = replace(two, overrides=changed)
    lines, fewer = (
        len(table(studies, 'vtab-vit-b-ablation').lines)
        for studies in ([base, two, *others], [base, *others])
    )
    assert lines == fewer


def test_variants_of_one_study_make_the_same_table():
    """The settings as variants of one study, instead of studies with overrides."""
    variants, results = {}, []
    for study in ablation():
        options = {**study.overrides, **study.results[0].options}
        variants[f'gleam-l-{study.name}'] = Variant('gleam-l', options)
        for result in study.results:
            results.append(replace(result, method=f'gleam-l-{study.name}', options={}))
    found = table([Study('ablations', results, {}, variants)], 'vtab-vit-b-ablation')
    cells = [shown(line) for line in table(ablation(), 'vtab-vit-b-ablation').lines]
    assert [shown(line) for line in found.lines] == cells


def test_the_ablation_of_the_docs_can_be_trained_and_makes_a_table():
    text = (Path(__file__).parents[2] / 'docs' / 'report.md').read_text(encoding='utf-8')
    (block,) = re.findall(r'```python\n(# ablation\.py\n.*?)```', text, re.DOTALL)
    told: dict = {}
    exec(block, told)
    settings = {key: told[key] for key in ('methods', 'datasets', 'variants')}
    _, sweep = make_sweep({**settings, 'backbone': 'vit-mini'})
    for method in sweep.methods:
        (job,) = sweep.final_jobs(method, sweep.datasets[0])
        build_bare(make_config(sweep, job)[0])
    results = [final(method, task) for method, task in sweep.pairs()]
    (section,) = [
        found
        for found in all_tables(Study('made', results, {}, sweep.variants))
        if found.key == 'vtab-vit-b-ablation'
    ]
    assert [line.section for line in section.lines] == ['Number of experts n', '', '', '']
    assert [shown(line)[1:3] for line in section.lines] == [
        ['—', '—'],
        ['2', '2'],
        ['3', '2'],
        ['4', '2'],
    ]


def test_wirings_are_told_apart():
    tasks = SUITES[0].ablation
    names = {'gleam-l': {}, 'gleam-l-token': {'gate': 'token'}, 'gleam-l-k1': {'top_k': 1}}
    study = Study(
        'wirings',
        [final(name, task) for name in names for task in tasks],
        {},
        {name: Variant('gleam-l', options) for name, options in names.items()},
    )
    sections, section = {}, ''
    for line in table(study, 'vtab-vit-b-ablation').lines:
        section = line.section or section
        sections.setdefault(section, []).append(line.label)
    assert sections == {
        'Selected experts k': ['gleam-l-k1', 'GLEAM-L'],
        'Wiring that the paper leaves open': ['GLEAM-L', 'gleam-l-token'],
    }


def test_options_chosen_for_each_task_are_no_ablation():
    tuned = [
        final('gleam-l', task, options={'alpha': alpha})
        for task, alpha in zip(SUITES[0].ablation, (1, 10, 1, 10, 1), strict=True)
    ]
    found = all_tables(Study('tuned', tuned), whole(('gleam-t',)))
    assert not [table for table in found if table.key.endswith('ablation')]


def test_other_trainings_are_no_ablation():
    """Settings that were trained longer, or are another method, differ in more than one thing."""
    tasks = SUITES[0].ablation
    named = {
        'gleam-l': Variant('gleam-l'),
        'gleam-l-k1': Variant('gleam-l', {'top_k': 1, 'optim_wrapper.optimizer.lr': 0.1}),
        'gleam-l-k3-short': Variant('gleam-l', {'top_k': 3, 'train_cfg.max_epochs': 5}),
        'fact': Variant('fact'),
        'fact-tucker': Variant('fact', {'form': 'tk'}),
    }
    study = Study('made', [final(name, task) for name in named for task in tasks], {}, named)
    found = [(line.section, line.label) for line in table(study, 'vtab-vit-b-ablation').lines]
    assert found == [
        ('Number of experts n', 'FacT-TT'),
        ('', 'GLEAM-L'),
        ('Selected experts k', 'gleam-l-k1'),
        ('', 'GLEAM-L'),
    ]


def test_the_ladder_is_an_ablation():
    found = table(whole(('fact', 'gleam-l')), 'vtab-vit-b-ablation')
    assert [shown(line)[:3] for line in found.lines] == [['16', '—', '—'], ['16', '4', '4']]


def test_few_shot_tables_have_a_row_for_each_number_of_shots():
    tasks = list(SUITES[2].tasks)
    studies = [
        whole(('lora',), tasks, name=f'{n}', overrides={'train_dataloader.dataset.shots': n})
        for n in (4, 1)
    ]
    found = table(studies, 'fgvc-vit-b-tasks')
    assert [line.label for line in found.lines] == ['LoRA, 1-shot', 'LoRA, 4-shot']


def test_datasets_of_no_suite_are_reported():
    found = table(whole(datasets=['birds', 'bees']), 'other-vit-b-tasks')
    assert [column.key for column in found.columns] == ['parameters', 'birds', 'bees', 'average']


def test_csv_has_unrounded_numbers():
    study = whole(seeds=(0, 1, 2))
    lora, paper, *_ = read_csv(tables.table_csv(table(study, 'vtab-vit-b-tasks')))
    values = [r.accuracy for r in study.results if (r.method, r.dataset) == ('lora', 'vtab-dtd')]
    assert float(lora['vtab-dtd']) == pytest.approx(sum(values) / 3, abs=1e-12)
    assert float(lora['parameters']) == 294_912
    assert (lora['source'], paper['source']) == ('measured', 'paper')
    assert (paper['vtab-dtd'], paper['average'], paper['vtab-dtd_std']) == ('', '74.5', '')


def test_csv_leaves_out_what_is_missing():
    found = table(Study('made', [final()]), 'vtab-vit-b-tasks')
    line = read_csv(tables.table_csv(found))[0]
    assert (line['vtab-cifar'], line['vtab-dtd'], line['average']) == ('50.0', '', '')


def test_every_final_training_is_in_a_csv():
    results = [final(options={'alpha': 10}), final(seed=1, accuracy=None, state='running')]
    study = Study('made', [*results, select()], {'train_cfg.max_epochs': 2})
    one, two = read_csv(build([study]).files['finals.csv'])
    assert (one['study'], one['accuracy'], one['options']) == ('made', '50.0', 'alpha=10')
    assert one['overrides'] == 'train_cfg.max_epochs=2'
    assert (two['seed'], two['state'], two['accuracy']) == ('1', 'running', '')


def test_markdown_tells_means_and_deviations():
    study = Study('made', [final(seed=s, accuracy=v) for s, v in ((0, 70), (1, 72))])
    text = tables.markdown(table(study, 'vtab-vit-b-tasks'))
    assert '| LoRA | 0.295 | 71.0 ± 1.4 | — |' in text
    assert '*paper*' in text


def test_the_highest_measured_number_of_a_task_is_the_best():
    results = [
        final(method, task, accuracy=value)
        for method, values in (('lora', (50, 70)), ('gleam-l', (60, 40)), ('fact', (55, 10)))
        for task, value in zip(VTAB, values, strict=False)
    ]
    text = tables.markdown(table(Study('made', results), 'vtab-vit-b-tasks'))
    # Not the paper's, which is higher than all of them, nor the only average there is.
    assert [bold for line in text.splitlines() for bold in line.split(' | ') if '**' in bold] == [
        '**70.0**',
        '**60.0**',
    ]
    assert '| LoRA | 0.295 | 50.0 | **70.0** |' in text


def test_a_study_without_final_trainings_is_told():
    with pytest.raises(UserError, match='empty: no final trainings'):
        parts([Study('empty', [select()])])
