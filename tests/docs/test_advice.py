"""The numbers of docs/advice.md are those of the records."""

import csv
import re
from collections import defaultdict
from statistics import fmean

from pages import ROOT

from gleam_mm.minivtab.tasks import MINI_TASKS

PAGE = (ROOT / 'docs' / 'advice.md').read_text('utf-8')
RECORD = ROOT / 'benchmarks' / 'minivtab' / 'results.csv'


def rows(section):
    """The rows of a section's table that begin with a method: its name and the other cells."""
    text = PAGE.split(f'## {section}\n')[1].split('\n## ')[0]
    for line in re.findall(r'^\| `([\w.-]+)` \| (.*) \|$', text, re.MULTILINE):
        yield line[0], [float(cell.replace(',', '')) for cell in line[1].split(' | ')]


def recorded(*studies):
    """What is complete: method -> dataset -> rows."""
    found = defaultdict(lambda: defaultdict(list))
    with RECORD.open() as file:
        for row in csv.DictReader(file):
            if row['study'] in studies and row['state'] == 'complete':
                found[row['method']][row['dataset'].removeprefix('mini-')].append(row)
    return found


def averages(tasks):
    """The means of the groups, and their mean."""
    groups = defaultdict(list)
    for task, found in tasks.items():
        mean = fmean(float(row['accuracy']) for row in found)
        groups[MINI_TASKS[task].group].append(mean)
    means = [fmean(groups[name]) for name in ('natural', 'specialized', 'structured')]
    return [*means, fmean(means)]


def close(told, true, digits):
    return all(abs(a - b) <= 0.5001 * 10**-digits for a, b in zip(told, true, strict=True))


def test_accuracies():
    found = recorded('minivtab', 'minivtab-others', 'minivtab-ablations')
    told = dict(rows('Which method'))
    assert len(told) > 10
    for method, (parameters, *means) in told.items():
        assert len(found[method]) == len(MINI_TASKS)
        assert parameters == float(next(iter(found[method].values()))[0]['parameters'])
        assert close(means, averages(found[method]), 1), (method, averages(found[method]))
    for method, (mean,) in rows('Scales'):
        assert close([mean], averages(found[method])[-1:], 1), method


def test_a_linear_classifier_has_what_the_page_of_the_digits_says():
    digits = ' '.join((ROOT / 'docs' / 'digits.md').read_text('utf-8').split())
    told = r'(\d+\.\d) to (\d+\.\d) {} (\d+\.\d)'
    (own,) = re.findall(told.format('.*? randomly initialised backbone gets'), digits)
    assert re.findall(told.format("on `vit-mini`'s features, and"), PAGE) == [own]


def test_what_mixing_costs_is_what_the_page_of_banks_says():
    bank = (ROOT / 'docs' / 'bank.md').read_text('utf-8')
    table = bank.split('| | one task | 19 tasks | ratio |')[1].split('\n\n')[0]
    ratios = [line.split('|')[4].strip() for line in table.splitlines()[2:] if 'PEFT' not in line]
    assert len(ratios) == 5
    assert f'ran at {min(ratios)} to {max(ratios)} of the speed of one for GLEAM, LoRA, SSF' in PAGE


def test_where_gleam_t_breaks():
    (told,) = re.findall(r'ends at chance there on (.*?) \((.*?) %\)', PAGE)
    told = re.findall(r'`(\w+)`', told[0]), [float(n) for n in re.findall(r'[\d.]+', told[1])]
    found = {}
    for task, rows in recorded('minivtab-tuned')['gleam-t'].items():
        (row,) = (r for r in rows if r['phase'] == 'select' and r['options'].endswith('=0.03'))
        guessing = 1 / MINI_TASKS[task].num_classes
        above = float(row['accuracy']) / 100 - guessing
        if above <= 3 * (guessing * (1 - guessing) / 200) ** 0.5:
            found[task] = float(row['accuracy'])
    assert found == dict(zip(*told, strict=True))


def test_rates():
    found = recorded('minivtab-rates')
    told = dict(rows('Learning rates'))
    assert len(told) > 10
    for method, means in told.items():
        by_rate = defaultdict(list)
        for row in (row for task in found[method].values() for row in task):
            by_rate[float(row['options'].partition('lr=')[2])].append(float(row['accuracy']))
        assert close(means, [fmean(by_rate[rate]) for rate in (0.003, 0.01, 0.03)], 2), method
