"""Counts of what was tried and what passed, by kind."""

import collections
import sys
from typing import NoReturn


class Tally:
    """What was tried and what passed."""

    def __init__(self) -> None:
        self.tried: collections.Counter[str] = collections.Counter()
        self.passed: collections.Counter[str] = collections.Counter()

    def add(self, kind: str, name: object, reason: str | None) -> None:
        """Counts a trial, and tells it where there is a reason why it has failed."""
        self.tried[kind] += 1
        self.passed[kind] += reason is None
        if reason is not None:
            print(f'{kind}: {name}: {reason}', flush=True)

    def finish(self, remark: str = '') -> NoReturn:
        """Prints the counts, and exits with 1 if anything has failed."""
        width = max(map(len, self.tried))
        for kind in self.tried:
            print(f'{kind:<{width}}  {self.passed[kind]:>3} of {self.tried[kind]:>3}')
        total = f'{self.passed.total():>3} of {self.tried.total():>3}'
        print(f'{"all":<{width}}  {total}{remark}')
        sys.exit(self.passed != self.tried)
