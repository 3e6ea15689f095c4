"""What ``tools/analyze.py`` saw inside of trained models, as sections of a page of results."""

import math
import shlex
import statistics
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from gleam_mm.output.escape import markdown, markdown_code
from gleam_mm.output.tables import MISSING, number, pipes

HOMOGENEITY, ROUTING = 'homogeneity.json', 'routing.json'

_UPDATES = f"""\
The paper's Figures 2 and 3: LoRA's updates are more alike across layers than the outputs of the
frozen layers; sharing makes it worse; GLEAM makes it better. For each role: mean cosine similarity
of the **updates** of adjacent blocks / of their **frozen outputs** for the same inputs, and in how
many trained models the updates are more alike than the frozen outputs. `tools/analyze.py
homogeneity` ([docs/analysis.md](../../docs/analysis.md)) measured it
([{HOMOGENEITY}]({HOMOGENEITY})) on {{data}}."""

_GATES = f"""\
What the gates decide in evaluation, without noise. For each role the mean weight of each expert,
from scale 1 upwards; the entropy of the weights, mean over sites and the least of a site, of at
most {{most}} nats; *between classes*: by how much an expert's mean weight differs between two
classes, at most, mean over sites. `tools/analyze.py routing` measured it
([{ROUTING}]({ROUTING})) on {{data}}."""


_COMMAND = """\
<!-- not run: it needs trainings of the sweeps -->
```bash
{tool} {analysis} --split {split} --max-images {images} \\
    {subjects}
```"""


def command(content: Mapping[str, Any], tool: str) -> str:
    """What measures it again, of trainings as the sweeps leave them, each beside its config.

    Args:
        content: What ``tools/analyze.py`` wrote.
        tool: How it is called from the folder that the trainings are under.
    """
    seen = content['subjects'][0]['data']
    subjects = []
    for subject in content['subjects']:
        folder = PurePosixPath(subject['checkpoint']).parent
        subjects.append(
            f'{subject["name"]}={folder}/{subject["config"]}.py:{subject["checkpoint"]}'
        )
    return _COMMAND.format(
        tool=tool,
        analysis=content['analysis'],
        split=seen['split'],
        images=seen['images'],
        subjects=' \\\n    '.join(map(shlex.quote, subjects)),
    )


def updates(content: Mapping[str, Any]) -> str:
    """How alike adjacent layers are, beside accuracy.

    Subjects are called after their method, with ``@`` and anything behind it where there are
    several of a method: ``lora@count``.
    """
    subjects = content['subjects']
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for subject in subjects:
        by_method.setdefault(subject['name'].partition('@')[0], []).append(subject)
    roles = list(dict.fromkeys(role for subject in subjects for role in subject['roles']))
    body = []
    for method, own in by_method.items():
        accuracy = statistics.fmean(subject['accuracy']['value'] for subject in own)
        cells = [_alike(own, role) for role in roles]
        body.append([markdown_code(method), str(len(own)), *cells, number(accuracy)])
    head = ['method', 'models', *roles, 'accuracy']
    return _UPDATES.format(data=_data(subjects)) + '\n\n' + pipes(head, body, left=('method',))


def differences(
    content: Mapping[str, Any], first: str, second: str | None
) -> dict[str, list[float]]:
    """By how much one method's updates are more alike in adjacent blocks than another's.

    Args:
        content: What ``tools/analyze.py homogeneity`` wrote.
        first: The method.
        second: The other one; None for the frozen outputs of the first.

    Returns:
        Role -> a difference of cosine similarities for each task that both have, without roles
        that one of them lacks.
    """
    roles = {subject['name']: subject['roles'] for subject in content['subjects']}
    found: dict[str, list[float]] = {}
    for name, own in roles.items():
        method, _, task = name.partition('@')
        if method != first:
            continue
        other, path = (
            (own, 'frozen') if second is None else (roles.get(f'{second}@{task}'), 'update')
        )
        for role in own.keys() & (other or {}).keys():
            cosines = [own[role]['update'], other[role][path]]
            mine, its = (measured['adjacent']['cosine'] for measured in cosines)
            if mine is not None and its is not None:
                found.setdefault(role, []).append(mine - its)
    order = list(dict.fromkeys(role for own in roles.values() for role in own))
    return {role: found[role] for role in order if role in found}


def gates(content: Mapping[str, Any]) -> str:
    """Which experts serve, for each model and role."""
    subjects = content['subjects']
    experts = max(len(subject['scales']) for subject in subjects)
    body = []
    for subject in subjects:
        roles = list(dict.fromkeys(site['role'] for site in subject['sites']))
        for role in roles:
            sites = [site for site in subject['sites'] if site['role'] == role]
            weights = [statistics.fmean(w) for w in zip(*(s['weight'] for s in sites), strict=True)]
            entropies = [site['gate_entropy'] for site in sites]
            body.append(
                [
                    markdown_code(subject['name']),
                    role,
                    *(number(weight, '.2f') for weight in weights),
                    *[MISSING] * (experts - len(weights)),
                    number(statistics.fmean(entropies), '.2f'),
                    number(min(entropies), '.2f'),
                    number(statistics.fmean(map(_spread_over_classes, sites)), '.2f'),
                ]
            )
    most = max(subject['top_k'] for subject in subjects)
    head = ['model', 'role', *(f'expert {i + 1}' for i in range(experts))]
    head += ['entropy', 'least', 'between classes']
    text = _GATES.format(data=_data(subjects), most=f'{math.log(most):.2f}')
    return text + '\n\n' + pipes(head, body, left=('model', 'role'))


def _data(subjects: Iterable[Mapping[str, Any]]) -> str:
    """The images that were looked at."""
    data = dict.fromkeys(
        markdown(f'{data["images"]:,} images of {data["dataset"]} {data["split"]}')
        for data in (subject['data'] for subject in subjects)
    )
    return ', '.join(data)


def _alike(subjects: Iterable[Mapping[str, Any]], role: str) -> str:
    pairs = []
    for subject in subjects:
        if measured := subject['roles'].get(role):
            pair = [measured[path]['adjacent']['cosine'] for path in ('update', 'frozen')]
            if None not in pair:
                pairs.append(pair)
    if not pairs:
        return MISSING
    update, frozen = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    above = sum(u > f for u, f in pairs)
    return f'{update:.3f} / {frozen:.3f} ({above} of {len(pairs)})'


def _spread_over_classes(site: Mapping[str, Any]) -> float:
    """The largest difference of an expert's mean weight between two classes."""
    # Of a class without images there is no number.
    seen = [weights for weights in site['weight_by_class'] if weights[0] is not None]
    return max(max(weights) - min(weights) for weights in zip(*seen, strict=True))
