"""How many sockets may be open: in all, and of one address. A socket holds its place until it is closed."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum


class Shortage(StrEnum):
    """Which places are taken."""

    ALL = "all"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """How many sockets at once."""

    in_all: int
    per_address: int | None = None
    """None: as many as in all."""


class Places:
    """Who holds places now. Memory is bounded by the sockets that are open."""

    def __init__(self, limits: PlaceLimits) -> None:
        self._limits = limits
        self._addresses: Counter[str] = Counter()
        self.taken = 0
        """Sockets that hold a place."""

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._addresses)

    def shortage(self, address: str | None) -> Shortage | None:
        """Why one more could not be opened now, or None. Changes nothing.

        Args:
            address: Who it comes from; None: somebody whom the limit of addresses does not concern.
        """
        if self.taken >= self._limits.in_all:
            return Shortage.ALL
        most = self._limits.per_address
        if most is not None and address is not None and self._addresses[address] >= most:
            return Shortage.ADDRESS
        return None

    def take(self, address: str | None) -> None:
        """Takes a place, which `leave` gives back; ask for a `shortage` before."""
        self.taken += 1
        if address is not None:
            self._addresses[address] += 1

    def leave(self, address: str | None) -> None:
        """Gives a place back."""
        self.taken -= 1
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
