"""How often a wrong password may be tried: a sliding window for each client, in bounded memory."""

from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock


class FailedAttempts:
    """Counts failures for each client within the last `window_s` seconds.

    At most `max_clients` are remembered; the one that failed longest ago is forgotten first.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        max_failures: int = 5,
        window_s: float = 60,
        max_clients: int = 1024,
    ) -> None:
        self._clock = clock
        self._max_failures = max_failures
        self._window_s = window_s
        self._max_clients = max_clients
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def wait_s(self, client: str) -> float:
        """Seconds until `client` may try again; 0 when it may now."""
        with self._lock:
            failures = self._recent(client)
            if len(failures) < self._max_failures:
                return 0
            return failures[0] + self._window_s - self._clock()

    def record(self, client: str) -> None:
        """Remember that `client` failed just now."""
        with self._lock:
            failures = self._recent(client)
            failures.append(self._clock())
            self._failures[client] = failures
            self._failures.move_to_end(client)
            if len(self._failures) > self._max_clients:
                self._failures.popitem(last=False)

    def forget(self, client: str) -> None:
        """`client` logged in: its failures no longer count."""
        with self._lock:
            self._failures.pop(client, None)

    def _recent(self, client: str) -> deque[float]:
        failures = self._failures.get(client, deque(maxlen=self._max_failures))
        while failures and failures[0] <= self._clock() - self._window_s:
            failures.popleft()
        return failures
