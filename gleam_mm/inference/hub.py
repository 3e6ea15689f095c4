"""Adapters on the hub of Hugging Face, with a card that is made of what they say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, EvalResult, HfApi, ModelCardData

from gleam_mm.checkpoint import ADAPTER, read_adapter
from gleam_mm.messages import listed
from gleam_mm.models import timm_models
from gleam_mm.output import tables
from gleam_mm.output.escape import markdown, markdown_code
from gleam_mm.version import __version__

_MOST_CLASSES = 30  # that a card names


def push_to_hub(
    adapter: str | Path,
    repository: str,
    private: bool = False,
    message: str | None = None,
    api: HfApi | None = None,
) -> str:
    """Uploads an adapter file, and a model card that is made of its metadata.

    The backbone is not uploaded: the card names it. Whoever is logged in (``hf auth login``, or
    ``HF_TOKEN``) owns the repository, which is made where there is none.

    Args:
        adapter: The file.
        repository: ``<name>/<repository>``.
        private: Whether a new repository is private.
        message: Of the commit.
        api: The client, of another hub for example.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: It is damaged or no adapter file.
    """
    api = api or HfApi()
    files = [(ADAPTER, str(adapter)), ('README.md', card(adapter, repository).encode())]
    api.create_repo(repository, private=private, exist_ok=True)
    commit = api.create_commit(
        repository,
        [CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in files],
        commit_message=message or f'Upload an adapter of GLEAM-MM {__version__}',
    )
    return str(commit.commit_url)


def from_hub(repository: str, revision: str | None = None, api: HfApi | None = None) -> Path:
    """Downloads an adapter, into the cache of Hugging Face.

    Args:
        repository: ``<name>/<repository>``.
        revision: A branch, tag or commit.
        api: The client, of another hub for example.

    Returns:
        The file, for :class:`gleam_mm.Predictor`, :func:`gleam_mm.load` and the tools.

    Raises:
        CheckpointError: It is damaged or no adapter file.
    """
    path = Path((api or HfApi()).hf_hub_download(repository, ADAPTER, revision=revision))
    read_adapter(path)  # what is wrong with it is told now
    return path


def card(adapter: str | Path, repository: str, source: str | None = None) -> str:
    """The model card of an adapter: what the hub reads, and a page.

    Args:
        adapter: The file.
        repository: Its name on the hub, or elsewhere.
        source: The expression that has the file in Python; by default it is got from the hub.
    """
    tensors, metadata = read_adapter(adapter)
    method = _name_of(metadata.get('method'))
    backbone, on_hub = _backbone(metadata)
    name = repository.rpartition('/')[2]
    measured = metadata.get('metrics') or {}
    split = 'test' if 'test' in measured else 'val'
    found = measured.get(split) or {}
    numbers = {key: value for key, value in found.items() if isinstance(value, int | float)}
    results = [
        EvalResult(
            task_type='image-classification',
            dataset_type=split,
            dataset_name=split,
            metric_type=key,
            metric_value=value,
        )
        for key, value in numbers.items()
    ]
    data = ModelCardData(
        library_name='gleam-mm',
        tags=['gleam-mm', 'petl', 'adapter', method.lower()],
        pipeline_tag='image-classification',
        base_model=on_hub,
        model_name=name if results else None,
        eval_results=results or None,
    )
    size = sum(tensor.numel() for tensor in tensors.values())
    lines = [
        f'# {markdown(name)}',
        '',
        f'{markdown(method)} on {markdown(backbone)}, trained with GLEAM-MM '
        f'{markdown((metadata.get("versions") or {}).get("gleam_mm", ""))}. The file has '
        f'{size:,} numbers ({tables.size(Path(adapter).stat().st_size)}), and no weights of the '
        'backbone.',
        '',
        '```python',
        'import gleam_mm',
        '',
        f'predict = gleam_mm.Predictor({source or f"gleam_mm.from_hub({repository!r})"})',
        "predict('picture.jpg')",
        '```',
    ]
    if numbers:
        lines += ['', f'| metric ({split}) | value |', '| --- | ---: |']
        lines += [f'| {markdown(key)} | {value:.4g} |' for key, value in numbers.items()]
    if classes := metadata.get('classes'):
        named = listed([markdown(name) for name in classes], _MOST_CLASSES)
        lines += ['', f'{len(classes)} classes: {named}']
    lines += ['', f'Fingerprint of the backbone: {markdown_code(metadata["backbone_fingerprint"])}']
    return f'---\n{data.to_yaml()}\n---\n\n' + '\n'.join(lines) + '\n'


def _name_of(config: Any) -> str:
    parts = config if isinstance(config, Sequence) and not isinstance(config, str) else [config]
    names = [part.get('type') for part in parts if isinstance(part, Mapping)]
    return ' and '.join(str(name).rpartition('.')[2] for name in names) or 'A method'


def _backbone(metadata: Mapping[str, Any]) -> tuple[str, str | None]:
    """What the backbone is called, and where the hub has it."""
    described = metadata.get('model')
    config = metadata.get('backbone') or {}
    name = described['name'] if described else config.get('model_name')
    if name is None:
        return str(config.get('type', 'a model')), None
    return name, timm_models.hub_name(name)
