"""Which pictures a training reads, so that going on with others does not pass unnoticed."""

from typing import Any

from mmengine.runner import Runner

from gleam_mm.engine.classes import parts_of

TRAINING_DATA = 'training_data'  # what the message hub remembers it under

# Options of datasets that say where pictures are, of folders, lists, the Hugging Face hub and tars.
_PLACES = ('data_root', 'ann_file', 'data_prefix', 'path', 'shards')


def places_of(dataset: Any) -> dict[str, str]:
    """The options that say where the pictures of a dataset are, and their values as text.

    Args:
        dataset: The dataset. If it is made of several, options begin with the number of theirs.
    """
    parts = list(parts_of(dataset))
    return {
        f'{index}.{key}' if len(parts) > 1 else key: str(value)
        for index, part in enumerate(parts)
        for key in _PLACES
        if (value := getattr(part, key, None))
    }


def tell_other_data(runner: Runner) -> None:
    """Warns of each option by which a resumed training reads other pictures than it did before.

    The same pictures may well have moved, so that this is no error.
    """
    before = runner.message_hub.runtime_info.get(TRAINING_DATA)
    now = places_of(runner.train_dataloader.dataset)
    if before is None or before == now:  # an earlier version remembered none
        return
    changes = [
        f'{key} {before.get(key)} -> {now.get(key)}'
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    runner.logger.warning(
        f'Resuming with other data: train_dataloader.dataset: {"; ".join(changes)}'
    )
