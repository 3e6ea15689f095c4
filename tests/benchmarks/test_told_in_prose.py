"""Numbers in sentences about the benchmarks: each is written here from the records, and found."""

import csv
import json
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT / 'benchmarks' / 'real'
TASKS = ('cifar10', 'signs', 'solar', 'land', 'letters', 'count', 'distance', 'orientation')


def rows(file):
    with file.open(encoding='utf-8', newline='') as lines:
        return list(csv.DictReader(lines))


RECORD = rows(REAL / 'results.csv')
PARAMETERS = {row['method']: int(row['parameters']) for row in RECORD}


def seeds(method, task):
    """The final trainings' accuracies, sorted."""
    return sorted(
        float(row['accuracy'])
        for row in RECORD
        if (row['phase'], row['method'], row['dataset']) == ('final', method, f'real-{task}')
    )


def mean(method, task=None, but=()):
    """On a task, or over those of all tasks that are not left out."""
    tasks = [task] if task else [task for task in TASKS if task not in but]
    return fmean(fmean(seeds(method, task)) for task in tasks)


def trials(method, task, file=REAL / 'results.csv', study=''):
    """On val200, by rising rate."""
    found = {
        float(row['options'].rpartition('=')[2]): float(row['accuracy'])
        for row in rows(file)
        if (row['phase'], row['method'], row['dataset']) == ('select', method, f'real-{task}')
        and row['study'].startswith(study)
    }
    return [found[rate] for rate in sorted(found)]


def wirings(name, task):
    record = ROOT / 'benchmarks' / 'choices' / 'results.csv'
    return trials(f'gleam-l-{name}', task, record, 'real-wirings')


def lead(first, second, task=None, but=()):
    """By how many points the first is ahead."""
    value = mean(first, task, but) - mean(second, task, but)
    assert value > 0, (first, second, task)
    return f'{value:.1f}'


def of(method, *tasks):
    """Accuracies, of the mean where there are no tasks."""
    return [f'{mean(method, task):.1f}' for task in tasks or [None]]


def times(method, of='gleam-l'):
    return f'{PARAMETERS[method] / PARAMETERS[of]:.1f} times'


def probed(depth):
    best = defaultdict(float)
    for row in rows(REAL / 'probe.csv'):
        if int(row['depth']) == depth:
            best[row['task']] = max(best[row['task']], float(row['accuracy']))
    return best


def alike(folder, *methods):
    """The mean cosine of adjacent blocks' updates at qkv, of each method."""
    subjects = json.loads((folder / 'homogeneity.json').read_text())['subjects']
    for method in methods:
        own = [s for s in subjects if s['name'].partition('@')[0] == method]
        yield fmean(subject['roles']['qkv']['update']['adjacent']['cosine'] for subject in own)


def entropies(method, role):
    """The mean entropy of the gates, of each model."""
    for subject in json.loads((REAL / 'routing.json').read_text())['subjects']:
        if subject['name'].partition('@')[0] == method:
            yield fmean(s['gate_entropy'] for s in subject['sites'] if s['role'] == role)


def span(values):
    return f'{min(values):.2f} to {max(values):.2f}'


def behind():
    """GLEAM-T and GLEAM-L against LoRA."""
    order = ('land', 'solar', 'signs', 'cifar10', 'count', 'orientation', 'letters')
    yield (
        'by {} points on land, {} on solar cells, {} on hand signs, {} on CIFAR-10, {} on count, '
        '{} on orientation and {} on letters.'
    ).format(*(lead('lora', 'gleam-t', task) for task in order))
    order = ('land', 'solar', 'cifar10', 'count', 'orientation', 'letters')
    yield (
        'GLEAM-L is {} ahead on distances, level on hand signs, and {}, {}, {}, {}, {} and {} '
        'behind on land, solar cells, CIFAR-10, count, orientation and letters.'
    ).format(
        lead('gleam-l', 'lora', 'distance'), *(lead('lora', 'gleam-l', task) for task in order)
    )


def means():
    """What leads what in the mean over tasks."""
    yield (
        f"GLEAM-L's preset is {lead('gleam-l', 'fact')} points above FacT, "
        f'{lead("gleam-l", "slora")} above SLoRA and {lead("gleam-l", "convpass")} above Convpass, '
        f'{lead("ssf", "gleam-l")} below SSF and {lead("repadapter", "gleam-l")} below RepAdapter.'
    )
    best = 'gleam-l-uniform'
    yield (
        f'GLEAM-L has {of(best)[0]} with it instead of {of("gleam-l")[0]}, and GLEAM-T '
        f'{of("gleam-t-uniform")[0]} instead of {of("gleam-t")[0]}.'
    )
    yield (
        f'{lead("lora", best)} points behind LoRA, which has {times("lora")} its parameters '
        f'(ahead on distances by {lead(best, "lora", "distance")} and hand signs by '
        f'{lead(best, "lora", "signs")}, behind on letters by {lead("lora", best, "letters")}), '
        f'{lead(best, "repadapter")} ahead of RepAdapter and {lead(best, "ssf")} of SSF, with '
        f'{times("repadapter").removesuffix(" times")} and {times("ssf")}, {lead(best, "fact")} of '
        f'FacT, {lead(best, "slora")} of SLoRA and {lead(best, "convpass")} of Convpass; LoRA on '
        f'every Linear, with {times("lora-all")}, is {lead("lora-all", best)} ahead of it.'
    )
    assert PARAMETERS['gleam-t-uniform'] < PARAMETERS['lora'] / 20
    yield (
        f'is {lead("lora", "gleam-t-uniform")} behind that and '
        f'{lead("fact", "gleam-t-uniform")} behind FacT; its preset is {lead("slora", "gleam-t")} '
        f'behind SLoRA, the random start {lead("gleam-t-uniform", "slora")} ahead.'
    )


def further():
    """The methods of two tasks."""
    two = ('cifar10', 'orientation')
    four = ('adapter', 'adaptformer', 'bitfit', 'hydra')
    assert all(mean(method, task) > mean('gleam-l', task) for method in four for task in two)
    yield (
        'Adapter has {} and {}, AdaptFormer {} and {}, BitFit {} and {}, Hydra {} and {}, all of '
        "them ahead of GLEAM-L's preset ({}, {}); of its random start ({}, {}) BitFit"
    ).format(*(told for name in (*four, 'gleam-l', 'gleam-l-uniform') for told in of(name, *two)))
    yield 'GLEAM-B ({}, {}) stands between GLEAM-T ({}, {}) and'.format(
        *of('gleam-b', *two), *of('gleam-t', *two)
    )
    yield f'of its preset it is ahead on CIFAR-10 by {lead("gleam-b", "gleam-l", "cifar10")}.'
    three = ('adapter-plus', 'dtl', 'vpt-deep')
    for method in three:
        assert max(trials(method, 'orientation')) == trials(method, 'orientation')[-1]
    yield (
        'Adapter+ has {} and {}, DTL {} and {}, VPT-deep {} and {}, all three on orientation best'
    ).format(*(told for name in three for told in of(name, *two)))
    guess = 1 / 16
    error = math.sqrt(guess * (1 - guess) / 2000)
    assert max(seeds('full', 'orientation')) <= 100 * (guess + 3 * error)
    yield '({} and {}; on orientation all three of its trainings ended at'.format(*of('full', *two))
    slow = 'full-slow'
    assert abs(mean(slow, 'orientation') - mean('lora', 'orientation')) < 0.2
    yield (
        f'it has {of(slow)[0]} in the mean, {lead("lora", slow)} behind LoRA with '
        f'{100 * PARAMETERS["lora"] / PARAMETERS[slow]:.1f} % of its parameters: ahead by '
        f'{lead(slow, "lora", "signs")} on hand signs and {lead(slow, "lora", "land")} on land'
    )
    yield '({} for {}).'.format(*of(slow, 'distance'), *of('lora', 'distance'))


def rungs():
    """What each rung of the ladder wins and loses."""
    loses = (lead('lora-all', 'slora', task) for task in (None, 'letters', 'distance'))
    yield 'it is {} points: {} on letters, {} on distances,'.format(*loses)
    yield (
        f'{lead("lora-all", "slora", "orientation")} on orientation. Local transforms (FacT) win '
        f'{lead("fact", "slora")} back, the mixture {lead("gleam-l", "fact")} more: '
        f'{lead("gleam-l", "fact", "distance")} on distances and '
        f'{lead("gleam-l", "fact", "orientation")} on orientation, while it loses '
        f'{lead("fact", "gleam-l", "letters")} on letters and '
        f'{lead("fact", "gleam-l", "solar")} on solar cells.'
    )
    yield (
        f'{lead("ssf", "gleam-l", "letters")} behind SSF and '
        f'{lead("repadapter", "gleam-l", "letters")} behind RepAdapter; over the other seven tasks '
        f'it is {lead("gleam-l", "ssf", but=["letters"])} ahead of SSF and '
        f'{lead("repadapter", "gleam-l", but=["letters"])} behind RepAdapter.'
    )
    yield (
        f'a random start is worth {lead("gleam-l-uniform", "gleam-l")} to GLEAM-L in the mean and '
        f'{lead("gleam-l-uniform", "gleam-l", "letters")} on letters.'
    )


def on_validation():
    """Trials on val200."""
    letters, orientation = (wirings('uniform', task) for task in ('letters', 'orientation'))
    preset = [max(trials('gleam-l', task)) for task in ('letters', 'orientation')]
    yield (
        f'a random start has {", ".join(map(str, letters))} and '
        f'{", ".join(map(str, orientation))}: at their best {max(letters)} and {max(orientation)}, '
        f'where the preset has {preset[0]} and {preset[1]}.'
    )
    small, large = (
        [max(wirings(f'alpha{alpha}', task)) for task in ('letters', 'orientation')]
        for alpha in ('0.1', '10')
    )
    yield 'A scale of 0.1 has {} and {} at its best, 10 has {} and {} and'.format(*small, *large)
    of_t, of_lora = trials('gleam-t', 'orientation'), trials('lora', 'orientation')
    yield f'up to the end of the grid ({", ".join(map(str, of_t))} %)'
    yield (
        f'LoRA is best in the middle ({", ".join(map(str, of_lora))}; with six epochs it breaks '
        f'above it, {trials("lora-6", "orientation")[-1]}).'
    )
    full = {task: trials('full', task) for task in ('cifar10', 'orientation')}
    yield '({} to {} on CIFAR-10, {} to {} on orientation,'.format(
        *(value for values in full.values() for value in (min(values), max(values)))
    )
    best = (max(trials(m, 'cifar10')) for m in ('linear', 'lora', 'gleam-l', 'gleam-l-uniform'))
    yield (
        'features of train800 has {} % on val200 (`probe.csv`), the trained linear probe {}, LoRA '
        '{}, GLEAM-L {}, and {} with the random start.'
    ).format(probed(10)['cifar10'], *best)


def six_epochs():
    """The longer schedule, and the seeds of the short one."""
    task = 'orientation'
    apart = seeds('gleam-t', task)
    yield f'the three seeds lie {apart[-1] - apart[0]:.0f} points apart'
    yield (
        f'GLEAM-T gains {mean("gleam-t-6", task) - mean("gleam-t", task):.1f} points and LoRA '
        f'{mean("lora-6", task) - mean("lora", task):.1f}, so that a gap of '
        f'{lead("lora", "gleam-t", task)} becomes {lead("lora-6", "gleam-t-6", task)};'
    )
    yield (
        f'start has {of("gleam-t-6-uniform", task)[0]} then, '
        f'{lead("lora-6", "gleam-t-6-uniform", task)} behind.'
    )


def probe():
    ten, twelve = probed(10), probed(12)
    behind = ', '.join(f'`{task}`' for task in sorted(ten) if ten[task] < twelve[task])
    yield (
        f'It was ten: {fmean(ten.values()):.1f} against {fmean(twelve.values()):.1f} % over the '
        f'eight tasks, behind on {" and".join(behind.rsplit(",", 1))} only'
    )


def inside():
    identity = {f'{value:.1f}' for value in alike(REAL, 'gleam-t', 'gleam-l')}
    other = {f'{abs(v):.1f}' for v in alike(REAL, 'gleam-t-uniform', 'gleam-l-uniform', 'lora')}
    yield (
        f'is {" ".join(identity)} for GLEAM-T and -L with the identity, and {" ".join(other)} with '
        'the random start, as for LoRA.'
    )
    yield f'has {next(alike(ROOT / "benchmarks" / "minivtab", "gleam-l")):.2f} with the identity'
    level = [
        *entropies('gleam-t', 'proj'), *entropies('gleam-l', 'proj'), *entropies('gleam-l', 'fc2')
    ]  # fmt: skip
    yield (
        f'(an entropy of {span(level)} of {math.log(4):.2f} nats; at fc2 GLEAM-T has '
        f'{span(list(entropies("gleam-t", "fc2")))})'
    )


def ahead_and_behind():
    """Of GLEAM-L: who is ahead of its preset, who behind, and how far its random start comes."""
    better, worse = (
        [(NAMES[method], of(method)[0]) for method in methods]
        for methods in (('repadapter', 'ssf'), ('fact', 'convpass'))
    )
    preset, start = mean('gleam-l'), mean('gleam-l-uniform')
    assert min(float(value) for _, value in better) > preset
    assert max(float(value) for _, value in worse) < preset
    assert all(float(value) < start for _, value in better + worse)
    return better, worse, lead('lora', 'gleam-l-uniform')


NAMES = {'repadapter': 'RepAdapter', 'ssf': 'SSF', 'fact': 'FacT', 'convpass': 'Convpass'}
RUNGS = (('lora-all', 'slora'), ('fact', 'slora'), ('gleam-l', 'fact'))


def test_what_the_front_page_says():
    page, chinese = (
        ' '.join((ROOT / name).read_text('utf-8').split())
        for name in ('README.md', 'README.zh-CN.md')
    )
    better, worse, short = ahead_and_behind()
    rungs = [lead(*pair) for pair in RUNGS]
    letters = mean('lora-all', 'letters') - mean('slora', 'letters')
    assert round(len(TASKS) * float(rungs[0]) / letters) == 3
    told = [f'{name} ({value})' for name, value in better + worse]
    assert (
        "**GLEAM-L's preset is behind {} and {}**, ahead of {} and {}: of the {} points that "
        'sharing loses, a third of them on letters, local transforms win {} back and the mixture {}'
    ).format(*told, *rungs) in page
    assert f"`local_init='uniform'`, it is {short} behind LoRA, ahead of these four." in page
    told = [f'{name}（{value}）' for name, value in better + worse]  # noqa: RUF001
    assert (
        '**GLEAM-L 的预设落后于 {}和 {}**，高于 {}和 {}：共享损失了 {} 分'.format(  # noqa: RUF001
            *told, rungs[0]
        )
        in chinese
    )
    assert '局部变换只挽回 {}，混合专家只挽回 {}（'.format(*rungs[1:]) in chinese  # noqa: RUF001
    assert f'平均只落后 LoRA {short}，高于这四种方法' in chinese  # noqa: RUF001


def test_what_the_page_of_the_ladder_says_of_it():
    page = ' '.join((ROOT / 'docs' / 'explain' / 'ladder.md').read_text('utf-8').split())
    told = (of(name)[0] for name in ('lora-all', 'slora', 'fact', 'gleam-l', 'gleam-l-uniform'))
    assert (
        'LoRA of rank 8 on every Linear has {}, SLoRA {}, FacT {} and GLEAM-L {}, or {} with local '
        'transforms that start at random'
    ).format(*told) in page


def test_what_the_second_edition_is_said_to_show():
    found = defaultdict(list)
    for row in rows(ROOT / 'benchmarks' / 'minivtab' / 'results.csv'):
        if row['phase'] == 'final' and row['study'].startswith('minivtab-tuned'):
            found[row['method']].append(float(row['accuracy']))
    assert {len(accuracies) for accuracies in found.values()} == {9 * 3}
    means = {method: fmean(accuracies) for method, accuracies in found.items()}

    def lead(first, second):
        return f'{means[first] - means[second]:.1f}'

    others = [means['gleam-l'] - means[m] for m in means.keys() - {'gleam-l', 'convpass'}]
    page = ' '.join((ROOT / 'docs' / 'minivtab.md').read_text('utf-8').split())
    for sentence in (
        f'**GLEAM-L has the highest mean of these twelve**: {lead("gleam-l", "convpass")} above '
        f'Convpass, which has more parameters, and {min(others):.1f} to {max(others):.1f} above',
        f'is worth {lead("gleam-l", "fact")} points',
        f'FacT is {lead("fact", "slora")} above SLoRA, LoRA on every Linear '
        f'{lead("lora-all", "slora")}, neither decided',
        f"a tenth of LoRA's parameters, is {lead('lora', 'gleam-t')} points behind it, "
        f'{lead("fact", "gleam-t")} behind FacT with a ninth, and {lead("slora", "gleam-t")} '
        'behind SLoRA',
    ):
        assert sentence in page


def test_what_the_first_edition_is_said_to_have():
    studies = defaultdict(list)
    for row in rows(ROOT / 'benchmarks' / 'minivtab' / 'results.csv'):
        if row['phase'] == 'final' and row['state'] == 'complete':
            studies[row['study']].append(row['method'])
    three = {
        study: sum(done.count(method) == 9 * 3 for method in set(done))
        for study, done in studies.items()
    }
    methods = three['minivtab'] + three['minivtab-others'] + three['minivtab-newer']
    words = {5: 'five', 12: 'twelve'}
    page = ' '.join((ROOT / 'docs' / 'minivtab.md').read_text('utf-8').split())
    assert (
        f'Three seeds of {methods} methods and variants, of the {words[three["minivtab-wirings"]]} '
        f'wirings and of the {words[three["minivtab-ablations"]]} ablations, one of the second'
    ) in page
    assert three['minivtab-second-rates'] == 0


def test_which_small_methods_the_second_edition_lacks():
    known = defaultdict(set)
    parameters = {}
    for row in rows(ROOT / 'benchmarks' / 'minivtab' / 'results.csv'):
        if row['phase'] == 'final':
            known[row['study']].add(row['method'])
            parameters[row['method']] = int(row['parameters'])
    first = known['minivtab'] | known['minivtab-others'] | known['minivtab-newer']
    second = known['minivtab-tuned'] | known['minivtab-tuned-rivals']
    second |= known['minivtab-tuned-others']
    assert len(second) == 12 and len(first) == 43
    lacks = [name for name in first - second if parameters[name] <= parameters['gleam-l']]
    lacks.sort(key=lambda name: (parameters[name], name))
    assert len(lacks) == 20
    page = ' '.join((ROOT / 'docs' / 'minivtab.md').read_text('utf-8').split())
    assert f'twenty were not measured here: {", ".join(f"`{name}`" for name in lacks)}.' in page


@pytest.mark.parametrize(
    'said', [behind, means, further, rungs, on_validation, six_epochs, probe, inside]
)
def test_what_the_real_backbone_is_said_to_show(said):
    page = ' '.join((REAL / 'README.md').read_text('utf-8').split())
    for sentence in said():
        assert sentence in page
