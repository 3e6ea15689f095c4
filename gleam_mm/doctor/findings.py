"""What an examination finds, gathered without stopping at the first mistake."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from mmengine.logging import MMLogger

from gleam_mm import errors

Level = Literal['ok', 'warning', 'error']


class Finding(NamedTuple):
    """One line of an examination.

    Attributes:
        level: ``'error'`` stops or spoils the training, ``'warning'`` is worth a look.
        topic: What it is about: a split of the data, ``weights``, ``schedule``, ...
        text: What was found.
        change: What would be changed, where something would.
        size: Bytes, where memory is forecast.
    """

    level: Level
    topic: str
    text: str
    change: str = ''
    size: int | None = None


class Findings(list[Finding]):
    """Findings in the order of the examination."""

    @property
    def failed(self) -> set[str]:
        """The topics that have errors."""
        return {finding.topic for finding in self if finding.level == 'error'}

    def ok(self, topic: str, text: str, size: int | None = None) -> None:
        """Adds what is as it should be."""
        self.append(Finding('ok', topic, text, size=size))

    def warning(self, topic: str, text: str, change: str = '') -> None:
        """Adds what is worth a look."""
        self.append(Finding('warning', topic, text, change))

    def error(self, topic: str, text: str, change: str = '') -> None:
        """Adds what stops or spoils the training."""
        self.append(Finding('error', topic, text, change))

    @contextmanager
    def gathered(self, topic: str, change: str = '') -> Iterator[None]:
        """Within it, an error of setting up a training is a finding and ends nothing else."""
        try:
            yield
        except (errors.UserError, *errors.SETUP_ERRORS) as error:
            text = ' '.join(errors.describe(error).split())
            if all(text != finding.text for finding in self):  # of several parts that have it
                self.error(topic, text, change)

    @contextmanager
    def listening(self, topic: str) -> Iterator[None]:
        """Within it, warnings that go to the log are findings; nothing else is logged."""
        logger, listener = MMLogger.get_current_instance(), _Listener(self, topic)
        handlers, logger.handlers = logger.handlers, [listener]
        try:
            yield
        finally:
            logger.handlers = handlers


class _Listener(logging.Handler):
    def __init__(self, findings: Findings, topic: str) -> None:
        super().__init__(logging.WARNING)
        self.findings, self.topic = findings, topic

    def emit(self, record: logging.LogRecord) -> None:
        self.findings.warning(self.topic, ' '.join(record.getMessage().split()))
