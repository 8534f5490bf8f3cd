"""Reading a runner's `GET /metrics`."""

from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

HUB_LATENESS = "runner_hub_lateness_seconds"


@dataclass(frozen=True)
class Histogram:
    """How many values were at most each bound, and how many there were."""

    below: dict[float, float]

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        return Histogram({bound: count - earlier.below[bound] for bound, count in self.below.items()})

    @property
    def count(self) -> float:
        """All values."""
        return max(self.below.values())

    def share_above(self, bound: float) -> float:
        """Of all values, those above one of the bounds."""
        return 1 - self.below[bound] / self.count

    def percentile(self, rank: float) -> float:
        """As Prometheus' `histogram_quantile`: within a bucket a straight line; the last bound, if it is above all."""
        wanted = self.count * rank / 100
        low = count_below = 0.0
        for bound, count in sorted(self.below.items()):
            if count >= wanted and count > count_below:
                is_open = bound == float("inf")
                return low if is_open else low + (bound - low) * (wanted - count_below) / (count - count_below)
            low, count_below = bound, count
        return low


def scrape(url: str) -> dict[str, float]:
    """Samples by name; those with labels add up.

    Args:
        url: http://, of the runner.
    """
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).raise_for_status().text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def histogram(url: str, name: str) -> Histogram:
    """One histogram without labels.

    Args:
        url: http://, of the runner.
        name: The metric's.
    """
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).raise_for_status().text)
    [family] = [family for family in families if family.name == name]
    return Histogram({float(each.labels["le"]): each.value for each in family.samples if "le" in each.labels})
