"""Finding the checkpoint from which an interrupted training goes on."""

import re
import warnings
from pathlib import Path

from gleam_mm import checkpoint as checkpoints

LAST = 'last_checkpoint'  # MMEngine's file with the path of the last checkpoint

_LONGEST_PATH = 4096
_NEEDED = ('meta', 'message_hub', 'optimizer', 'state_dict')


def find_resumable(work_dir: str | Path) -> Path | None:
    """Finds the newest checkpoint from which training can go on.

    That is the one with the highest number which is whole and has the state of a training. Its name
    is like the one that ``last_checkpoint`` names or, where that says nothing, like MMEngine's:
    ``epoch_10.pth`` or ``iter_200.pth``. Warns of each that had to be passed over, and why.

    Args:
        work_dir: The work directory of the interrupted run.

    Returns:
        The checkpoint, or None where there is none.
    """
    for path in _candidates(Path(work_dir)):
        try:
            content = checkpoints.load_from_local(str(path), map_location='cpu')
        except (checkpoints.CheckpointError, OSError) as error:
            _pass_over(str(error))
            continue
        missing = [key for key in _NEEDED if key not in content]
        if not missing and {'epoch', 'iter'} <= content['meta'].keys():
            return path
        _pass_over(f'{path}: no checkpoint of a training, it lacks {", ".join(missing or _NEEDED)}')
    return None


def is_of(checkpoint: str | Path, work_dir: str | Path) -> bool:
    """Whether a checkpoint lies where the training of a work directory writes its own."""
    last = _last(Path(work_dir))
    folders = {Path(work_dir)} | ({last.parent} if last else set())
    return Path(checkpoint).resolve().parent in {folder.resolve() for folder in folders}


def _candidates(work_dir: Path) -> list[Path]:
    """Checkpoints that are named as ours are, the newest first."""
    last = _last(work_dir)
    folders = {work_dir} if last is None else {last.parent}
    paths = {path for folder in folders for path in folder.glob('*.pth')}
    paths = {path for path in paths if not path.name.startswith(('best_', '.'))}
    kinds = {_kind(path) for path in paths} & {'epoch_#.pth', 'iter_#.pth'}
    if last is not None:
        kinds = {_kind(last)}
        paths |= {last}
    ours = {path for path in paths if _kind(path) in kinds}
    for path in sorted(paths - ours):
        _pass_over(f'{path}: not named as the checkpoints of this training')
    return sorted(ours, key=_numbers, reverse=True)


def _last(work_dir: Path) -> Path | None:
    """The checkpoint that ``last_checkpoint`` names, if it says so and it is there."""
    pointer = work_dir / LAST
    try:
        named = Path(pointer.read_bytes()[: _LONGEST_PATH + 1].decode().strip())
        # The work directory may have been moved or copied since: what is in it is its own.
        found = [path for path in (work_dir / named.name, named) if path.is_file()]
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        _pass_over(f'{pointer}: does not name a checkpoint')
        return None
    return found[0] if found else None


def _kind(path: Path) -> str:
    return re.sub(r'\d+', '#', path.name)


def _numbers(path: Path) -> tuple[list[int], str]:
    """Sorts ``epoch_10.pth`` behind ``epoch_9.pth``."""
    return [int(digits) for digits in re.findall(r'\d+', path.name)], path.name


def _pass_over(reason: str) -> None:
    warnings.warn(f'cannot resume from {reason}', stacklevel=4)
