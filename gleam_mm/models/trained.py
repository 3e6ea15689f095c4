"""What of a model is trained beside its method: known as well where all of it was frozen since."""

from typing import Any

from torch import nn


def learning(model: nn.Module) -> set[str]:
    """The names of the parameters of a model that have ``requires_grad`` by now.

    Of one that stands at several places all names, for a state dict has them all.
    """
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if parameter.requires_grad}


class Trained:
    """Remembers what learns in a model, for when nothing does any more.

    A whole model is frozen for inference, and so is timm's ``ModelEma``, a copy of one: neither
    unlearns anything. A part that is frozen while others learn is not trained any more.

    ``copy.deepcopy`` and ``pickle`` of the model take this along, with what learns by then.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names = learning(model)

    def names(self) -> set[str]:
        """What learns; where nothing does, what did when this was last made, asked or copied."""
        self._names = learning(self._model) or self._names
        return self._names

    def __getstate__(self) -> dict[str, Any]:
        """Who copies a model may freeze the copy before anything asks it."""
        return {'_model': self._model, '_names': self.names()}
