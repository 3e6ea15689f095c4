"""Several runs in this process."""

from collections import OrderedDict

from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from mmpretrain.visualization import UniversalVisualizer


def begin_anew(patch):
    """Lets a run know nothing of those before it, until a patch is undone.

    MMEngine keeps what runs log to by the name of the config and the second in which they began. A
    second run of that second would write to the folder of the first, and print to what was its
    standard output.
    """
    for kind in (MMLogger, MessageHub, Visualizer, UniversalVisualizer):
        patch.setattr(kind, '_instance_dict', OrderedDict())
