"""What Prometheus is told of a server."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gleam_mm.bank import AdapterBank

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Numbers of one server, in a registry of its own.

    Args:
        bank: The bank that is served.
        waiting: Tells how many pictures wait.
    """

    def __init__(self, bank: AdapterBank, waiting: Callable[[], int]) -> None:
        self._registry = own = CollectorRegistry()
        self._bank = bank
        self._requests = Counter(
            'gleam_requests', 'Requests by route and status', ['route', 'status'], registry=own
        )
        self._seconds = Histogram(
            'gleam_request_seconds', 'Time of a request', ['route'], buckets=_SECONDS, registry=own
        )
        self._predictions = Counter('gleam_predictions', 'Pictures by task', ['task'], registry=own)
        self._batches = Histogram(
            'gleam_batch_pictures',
            'Pictures of a pass',
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=own,
        )
        self._passes = Histogram(
            'gleam_pass_seconds', 'Time of a pass', buckets=_SECONDS, registry=own
        )
        self._memory = Gauge('gleam_memory_bytes', 'What the bank holds', ['part'], registry=own)
        tasks = Gauge('gleam_tasks', 'Tasks of the bank', registry=own)
        tasks.set_function(lambda: len(bank.tasks))
        Gauge('gleam_waiting_pictures', 'Pictures that wait', registry=own).set_function(waiting)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def prediction(self, task: str) -> None:
        """A picture was classified."""
        self._predictions.labels(task).inc()

    def passed(self, pictures: int, seconds: float) -> None:
        """A pass has ended."""
        self._batches.observe(pictures)
        self._passes.observe(seconds)

    def text(self) -> bytes:
        """All numbers, in Prometheus' format."""
        memory = self._bank.memory
        for part in ('backbone', 'adapters', 'heads'):
            self._memory.labels(part).set(getattr(memory, part))
        return generate_latest(self._registry)
