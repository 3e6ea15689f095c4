"""Compares each check of the matrix with what is on record; writes the record when asked to."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from gleam_mm.fileio import write_bytes

PAGE = Path(__file__).parents[2] / 'docs' / 'conformance.md'
RECORD = Path(__file__).with_name('outcomes.json')
PASSED = '✓', ''
KINDS = {
    'vit': 'MMPretrain ViT',
    'swin': 'MMPretrain Swin',
    'timm-vit': 'timm ViT',
    'timm-swin': 'timm Swin',
}
CHECKS = {
    'identity': ('starts as the pretrained model', 'the features of the frozen backbone, to 2e-6'),
    'declared': ('trains what it declares', 'these parameters, the head, and no others'),
    'count': ('parameters', "as many as the closed formula of the method's paper"),
    'saved': ('file', 'holds what is trained, or was before, and declared buffers, nothing more'),
    'round_trip': ('round trip', 'saved, loaded by another process: equal outputs, bit for bit'),
    'detach': ('detach', 'gives the original model back, bit for bit'),
    'attach_twice': ('attach twice', 'is an error'),
    'merge': ('merge', 'the same outputs to 1e-5, and `unmerge()` bit for bit; or a refusal'),
    'copies': ('copies', '`deepcopy` and `pickle` give a model that shares nothing'),
    'gradients': ('gradients', 'reach every parameter within three steps, none is ever unused'),
    'learning': ('learns', 'the loss falls in ten steps, with a frozen head'),
    'bfloat16': ('bfloat16', 'the same under autocast, parameters stay in float32'),
    'image_size': ('image size', 'other sizes than the backbone was built for'),
    'compile': ('compile', '`torch.compile(fullgraph=True)`: no graph break, the same outputs'),
}


Outcome = tuple[str, str]
"""What a cell of the page says, and a note."""


class Outcomes:
    """What each check of each method said on each kind of backbone.

    Attributes:
        methods: The names of the methods, in the order of the page.
        others: What did not simply pass: (method, check, kind) -> outcome.
    """

    def __init__(self, methods: list[str], others: dict[tuple[str, str, str], Outcome]) -> None:
        self.methods, self.others = methods, others

    @classmethod
    def read(cls, file: Path) -> 'Outcomes':
        """Reads a record; one that is missing knows no method."""
        if not file.is_file():
            return cls([], {})
        record = json.loads(file.read_text(encoding='utf-8'))
        others = {
            (method, check, kind): (cell, note)
            for method, check, kind, cell, note in record['others']
        }
        return cls(record['methods'], others)

    def text(self) -> str:
        """The record."""
        others = ',\n'.join(
            json.dumps([*place, *outcome], ensure_ascii=False)
            for place, outcome in sorted(self.others.items())
        )
        return f'{{"methods": {json.dumps(self.methods)},\n"others": [\n{others}\n]}}\n'

    def page(self) -> str:
        """The page in Markdown."""
        notes: list[str] = []
        header = ['method', *(title for title, _ in CHECKS.values())]
        lines = [f'| {" | ".join(header)} |', f'| --- |{" :-: |" * len(CHECKS)}']
        for method in self.methods:
            cells = [self._cell(method, check, notes) for check in CHECKS]
            lines.append(f'| {method} | {" | ".join(cells)} |')
        meaning = [f'- **{title}**: {text}.' for title, text in CHECKS.values()]
        reasons = [f'{number}. {note}' for number, note in enumerate(notes, start=1)]
        return '\n'.join(
            [
                '# Conformance',
                '',
                f'Every method runs through the same checks on {_join(KINDS.values())},',
                'small versions with random weights, on images that are no squares. A check mark',
                'stands for all four. `make conformance` writes this page, and the test suite',
                'fails where it is not what its checks say (`tests/conformance/`).',
                '',
                *lines,
                '',
                '## What is checked',
                '',
                *meaning,
                '',
                '## Notes',
                '',
                *reasons,
                '',
            ]
        )

    def _cell(self, method: str, check: str, notes: list[str]) -> str:
        """One cell, for all four backbones where they agree, and one by one where they do not."""
        groups: dict[Outcome, list[str]] = defaultdict(list)
        for kind, title in KINDS.items():
            groups[self.others.get((method, check, kind), PASSED)].append(title)
        texts = []
        for (cell, note), titles in groups.items():
            if len(groups) > 1 and (cell, note) == PASSED:
                continue  # the others say where they stand
            where = '' if len(groups) == 1 else f'{_join(titles)}: '
            if where or note:
                remark = f'{where}{note or cell}'
                if remark not in notes:
                    notes.append(remark)
                cell += f' ({notes.index(remark) + 1})'
            texts.append(cell)
        return ', '.join(texts)


class ConformanceTable:
    """A pytest plugin that collects what the checks of the matrix said.

    A check tells its place by the property ``conformance``, a list of the method, its row, the
    number of rows, the kind of backbone and the check's name. A run fails if the record says
    something else of what it saw, be that the matrix or one check.

    Args:
        write: Whether to write record and page instead, if the run saw every place.
        page: The file of the page.
        record: The file of the record.
    """

    def __init__(self, write: bool = False, page: Path = PAGE, record: Path = RECORD) -> None:
        self.write = write
        self.page, self.record = page, record
        self.stale: list[str] = []
        self.rows: dict[int, str] = {}
        self.expected = 0
        self.seen: dict[tuple[str, str, str], Outcome] = {}
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes one check's outcome; of a check in several forms, what is no check mark."""
        properties = dict(report.user_properties)
        if 'conformance' not in properties or (report.when != 'call' and not report.failed):
            return
        name, row, self.expected, kind, check = properties['conformance']
        self.rows[row] = name
        place = name, check, kind
        if hasattr(report, 'wasxfail'):
            self.seen[place] = 'no', report.wasxfail
        elif report.passed:
            outcome = properties.get('cell', PASSED[0]), properties.get('note', '')
            if self.seen.get(place, PASSED) == PASSED:
                self.seen[place] = outcome
        else:
            self.failed = True  # which is said already

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compares, or writes."""
        if self.write:
            complete = len(self.seen) == self.expected * len(KINDS) * len(CHECKS)
            if complete and not self.failed:
                methods = [self.rows[row] for row in sorted(self.rows)]
                others = {place: o for place, o in self.seen.items() if o != PASSED}
                outcomes = Outcomes(methods, others)
                write_bytes(self.record, outcomes.text().encode())
                write_bytes(self.page, outcomes.page().encode())
            return
        recorded = Outcomes.read(self.record)
        for place, outcome in self.seen.items():
            method, check, kind = place
            said = recorded.others.get(place, PASSED) if method in recorded.methods else None
            if said != outcome:
                self.stale.append(f'{method}, {check}, {kind}: {said} is on record, not {outcome}')
        if self.stale:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says in what the record is not what the run saw, and what to do about it."""
        if self.stale:
            terminalreporter.section('conformance', red=True, bold=True)
            terminalreporter.line(
                f'{self.record}: the run saw something else; write it anew by `make conformance`'
            )
            for line in self.stale:
                terminalreporter.line(line)


def _join(names: object) -> str:
    *others, last = names
    return f'{", ".join(others)} and {last}' if others else last
