"""Compares docs/conformance.md with a run that saw all of the matrix; writes it when asked to."""

from collections import defaultdict
from difflib import unified_diff
from pathlib import Path

import pytest

from gleam_mm.fileio import write_bytes

PAGE = Path(__file__).parents[2] / 'docs' / 'conformance.md'
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


class ConformanceTable:
    """A pytest plugin that collects what the checks of the matrix said.

    A check tells its place by the property ``conformance``, a list of the method, its row, the
    number of rows, the kind of backbone and the check's name. A run that saw every place fails if
    the page says something else. One that saw a part, or failures, says nothing about the page.

    Args:
        write: Whether to write the page instead.
        page: The file.
    """

    def __init__(self, write: bool = False, page: Path = PAGE) -> None:
        self.write = write
        self.file = page
        self.stale: list[str] = []
        self.rows: dict[int, str] = {}
        self.expected = 0
        self.cells: dict[tuple[int, str, str], list[tuple[str, str]]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes one check's outcome, or that of its setup if that went wrong."""
        properties = dict(report.user_properties)
        if 'conformance' not in properties or (report.when != 'call' and not report.failed):
            return
        name, row, self.expected, kind, check = properties['conformance']
        self.rows[row] = name
        if hasattr(report, 'wasxfail'):
            cell, note = 'no', report.wasxfail
        elif report.passed:
            cell, note = properties.get('cell', '✓'), properties.get('note', '')
        else:
            cell, note = 'fails', ''
        self.cells[row, kind, check].append((cell, note))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compares or writes the page."""
        complete = self.expected and len(self.cells) == self.expected * len(KINDS) * len(CHECKS)
        if not complete or any(('fails', '') in outcomes for outcomes in self.cells.values()):
            return
        text = self.page()
        if self.write:
            write_bytes(self.file, text.encode())
        elif (written := self.file.read_text() if self.file.is_file() else '') != text:
            pages = written.splitlines(), text.splitlines()
            self.stale = list(unified_diff(*pages, 'the page', 'the run', lineterm='', n=0))
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says in what a page is not what the run saw, and what to do about it."""
        if self.stale:
            terminalreporter.section('conformance', red=True, bold=True)
            terminalreporter.line(
                f'{self.file}: the run saw something else; write it anew by `make conformance`'
            )
            for line in self.stale:
                terminalreporter.line(line)

    def page(self) -> str:
        """The page in Markdown."""
        notes: list[str] = []
        header = ['method', *(title for title, _ in CHECKS.values())]
        lines = [f'| {" | ".join(header)} |', f'| --- |{" :-: |" * len(CHECKS)}']
        for row in sorted(self.rows):
            cells = [self._cell(row, check, notes) for check in CHECKS]
            lines.append(f'| {self.rows[row]} | {" | ".join(cells)} |')
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

    def _cell(self, row: int, check: str, notes: list[str]) -> str:
        """One cell, for all four backbones where they agree, and one by one where they do not."""
        by_kind = {kind: self._worst(row, kind, check) for kind in KINDS}
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        for kind, outcome in by_kind.items():
            groups[outcome].append(KINDS[kind])
        texts = []
        for (cell, note), titles in groups.items():
            if len(groups) > 1 and cell == '✓':
                continue  # the others say where they stand
            where = '' if len(groups) == 1 else f'{_join(titles)}: '
            if where or note:
                remark = f'{where}{note or cell}'
                if remark not in notes:
                    notes.append(remark)
                cell += f' ({notes.index(remark) + 1})'
            texts.append(cell)
        return ', '.join(texts)

    def _worst(self, row: int, kind: str, check: str) -> tuple[str, str]:
        """One outcome for a check that ran in several forms, such as deepcopy and pickle."""
        return min(self.cells[row, kind, check], key=lambda outcome: outcome[0] == '✓')


def _join(names: object) -> str:
    *others, last = names
    return f'{", ".join(others)} and {last}' if others else last
