"""What belongs to one forward pass of a backbone."""

import threading


class PassState(threading.local):
    """Values that one forward pass carries from module to module; each thread has its own.

    So a model may serve several threads at once, each with images of another size. A subclass sets
    what a pass starts with in ``__init__``, which runs anew in every thread. Copies start empty.
    """

    def __reduce__(self) -> tuple:
        return type(self), ()
