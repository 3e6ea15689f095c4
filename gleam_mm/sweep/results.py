"""What the trainings of a study came to, read without changing anything."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Result:
    """One training of a study, done or not.

    Attributes:
        backbone: Name of the backbone, as in recipes.
        method: Name of the method.
        dataset: Name of the dataset, as in ``configs/_base_/datasets``.
        phase: ``select`` (trained on train800, judged on val200) or ``final`` (trained on
            train800val200, tested once at the last epoch).
        seed: Seed of everything random.
        options: The grid's values; in ``final`` the chosen ones. Empty without a grid, and in
            ``final`` before they are chosen.
        state: ``complete``, ``running``, ``failed`` or ``waiting``.
        accuracy: Top-1 in %, on val200 in ``select``, on test in ``final``; None unless complete.
        parameters: Trained numbers, head excluded; None unless complete.
        seconds: Wall time of the training; None unless complete.
        curve: A dict an epoch: ``epoch``, ``loss``, ``lr`` and in ``select`` ``accuracy``. A loss
            that is not finite is None. Empty unless complete.
        error: What went wrong, of a failed training.
        log: The folder or file to look into, on the machine that trained.
    """

    backbone: str
    method: str
    dataset: str
    phase: str
    seed: int
    options: dict
    state: str
    accuracy: float | None = None
    parameters: int | None = None
    seconds: float | None = None
    curve: list[dict] = field(default_factory=list)
    error: str | None = None
    log: str | None = None
