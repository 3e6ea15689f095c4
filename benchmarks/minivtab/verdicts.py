"""The claims put to the test, and the sections that tell how they came out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import paired
from claims import Claim, Comparison
from paired import Paired, Scores

from gleam_mm.output.escape import markdown_code
from gleam_mm.output.tables import MISSING, count, number, pipes

RULE = """\
A comparison A > B says that A is better than B. Its pairs are the tasks and seeds that both have.

| column | |
| :--- | :--- |
| difference | A minus B in points: the mean over tasks of each task's mean over seeds |
| 95 % | its interval by Student's t over tasks, not corrected for the number of comparisons |
| SD | standard deviation of the differences of all pairs |
| W/T/L | pairs in which A is better, equal, worse |
| p tasks | Student's t test over the tasks' mean differences |
| p pairs | Wilcoxon's signed-rank test over pairs, zeros dropped |

Both tests are two-sided. In brackets: p after Holm's correction over all comparisons of the
section; those without data count as p = 1. Seeds of one task are not independent of each other,
which the test over pairs takes them to be. So p tasks decides, and p pairs stands beside it:

- **holds**: the difference is above 0, and the corrected p tasks below 0.05;
- **the other way round**: the difference is below 0, and the corrected p tasks below 0.05;
- **not decided**: anything else; the interval says what the data leave possible;
- **no data**: no task and seed has both.

A p over tasks speaks of tasks such as these nine, on this backbone, with options as above."""

_COLUMNS = (
    'A > B',
    'what',
    'parameters of A',
    'of B',
    'fewer',
    'difference',
    '95 %',
    'SD',
    'pairs',
    'W/T/L',
    'p tasks',
    'p pairs',
    'verdict',
    "the paper's text",
)
_TEXTS = ('A > B', 'what', 'fewer', 'verdict', "the paper's text")


@dataclass(frozen=True)
class Judged:
    """A comparison and what came of it.

    Attributes:
        comparison: The comparison.
        paired: Its numbers; None without data.
        p_pairs: p over pairs, corrected.
        p_tasks: p over tasks, corrected.
        verdict: The verdict; empty where the claim is not tested by it.
    """

    comparison: Comparison
    paired: Paired | None
    p_pairs: float | None = None
    p_tasks: float | None = None
    verdict: str = ''

    @property
    def title(self) -> str:
        """What is compared."""
        return ' > '.join(map(markdown_code, (self.comparison.first, self.comparison.second)))


def look_at(comparison: Comparison, scores: Mapping[str, Scores]) -> Judged:
    """A comparison without correction and verdict."""
    first, second = (scores.get(name, {}) for name in (comparison.first, comparison.second))
    return Judged(comparison, paired.compare(first, second))


def judge(claim: Claim, scores: Mapping[str, Scores]) -> list[Judged]:
    """Puts a claim to the test.

    Args:
        claim: The claim.
        scores: Method -> task and seed -> accuracy.
    """
    found = [look_at(comparison, scores) for comparison in claim.comparisons]
    for_pairs = paired.holm([one.paired.p_pairs if one.paired else None for one in found])
    for_tasks = paired.holm([one.paired.p_tasks if one.paired else None for one in found])
    return [
        Judged(one.comparison, one.paired, pairs, tasks, paired.verdict(one.paired, tasks))
        for one, pairs, tasks in zip(found, for_pairs, for_tasks, strict=True)
    ]


def section(claim: Claim, judged: Sequence[Judged], parameters: Mapping[str, int]) -> str:
    """The section of a claim."""
    parts = [f'## {claim.title}', claim.says]
    parts.append(lines(judged, parameters) if judged else 'Nothing to compare is recorded yet.')
    return '\n\n'.join(parts)


def lines(judged: Sequence[Judged], parameters: Mapping[str, int]) -> str:
    """A table of comparisons; columns that would be empty are left out."""
    rows = [_row(one, parameters) for one in judged]
    used = [any(row[column] for row in rows) for column in range(len(_COLUMNS))]
    head, *body = (
        [cell for cell, keep in zip(row, used, strict=True) if keep] for row in (_COLUMNS, *rows)
    )
    return pipes(head, body, _TEXTS)


def _row(one: Judged, parameters: Mapping[str, int]) -> list[str]:
    comparison, result = one.comparison, one.paired
    first, second = (parameters.get(name) for name in (comparison.first, comparison.second))
    fewer = MISSING
    if first is not None and second is not None:
        fewer = 'equal' if first == second else 'A' if first < second else 'B'
    row = [one.title, comparison.about, count(first), count(second), fewer]
    if result is None:
        row += [MISSING, MISSING, MISSING, '0', MISSING, MISSING, MISSING]
    else:
        interval = MISSING
        if result.half_width is not None:
            low, high = result.mean - result.half_width, result.mean + result.half_width
            interval = f'{low:+.2f} to {high:+.2f}'
        row += [
            f'{result.mean:+.2f}',
            interval,
            number(result.deviation, '.2f'),
            f'{result.pairs} ({len(result.tasks)} tasks)',
            f'{result.wins}/{result.ties}/{result.losses}',
            *(
                f'{p_value(p)} ({p_value(corrected)})' if one.verdict else p_value(p)
                for p, corrected in (
                    (result.p_tasks, one.p_tasks),
                    (result.p_pairs, one.p_pairs),
                )
            ),
        ]
    return [*row, f'**{one.verdict}**' if one.verdict else '', comparison.paper]


def summary(judged: Mapping[str, Sequence[Judged]]) -> str:
    """All verdicts in a table, a row a claim.

    Args:
        judged: Title of a claim -> its comparisons.
    """
    verdicts = (paired.HOLDS, paired.OPPOSITE, paired.OPEN, paired.NO_DATA)
    body = []
    for title, found in judged.items():
        cells = []
        for verdict in verdicts:
            those = [one for one in found if one.verdict == verdict]
            cells.append('<br>'.join(map(_short, those)) or MISSING)
        body.append([title, *cells])
    return pipes(('claim', *verdicts), body, ('claim', *verdicts))


def _short(one: Judged) -> str:
    return one.title if one.paired is None else f'{one.title} ({one.paired.mean:+.2f})'


def p_value(value: float | None) -> str:
    """A p value, with four decimals where they matter."""
    if value is None:
        return MISSING
    return '<0.0001' if value < 1e-4 else f'{value:.4f}' if value < 0.1 else f'{value:.2f}'
