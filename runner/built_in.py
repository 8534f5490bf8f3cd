"""The apps that the model answers to, and what they share: the engine, the media store, the way to fetch pictures."""

from runner.apps.diffusion import Diffusion
from runner.apps.engine import Engine
from runner.apps.fast_lcm_diffusion import FastLcmDiffusion
from runner.apps.fast_turbo_diffusion import APP_ID as FAST_TURBO
from runner.apps.fast_turbo_diffusion import FastTurboDiffusion
from runner.apps.links import Links
from runner.apps.pictures import Fetch, fetch_nothing
from runner.fetching.addresses import Reach
from runner.fetching.download import Downloader
from runner.fetching.fetcher import Fetcher
from runner.media.store import MediaStore
from runner.settings import Settings
from schemas import limits


class BuiltInApps:
    """Makes the apps; `start` before the first request."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._engine = engine
        self.media = MediaStore(
            settings.media_dir,
            max_bytes=settings.media_max_bytes,
            ttl_s=settings.media_ttl_s,
            max_ttl_s=settings.media_max_ttl_s,
        )
        self._links = Links(self.media, settings.public_url.rstrip("/"))
        self._fetcher = _fetcher(settings) if settings.fetch_urls else None

    def app(self, app_id: str) -> Diffusion:
        """The model under an id: the turbo app under fal's name for it, else the LCM app."""
        kind = FastTurboDiffusion if app_id == FAST_TURBO else FastLcmDiffusion
        fetch: Fetch = fetch_nothing if self._fetcher is None else self._fetcher
        return kind(self._engine, fetch=fetch, links=self._links)

    def start(self) -> None:
        """Make the media folder.

        Raises:
            OSError: it cannot be made or written to.
        """
        self.media.start()

    def stop(self) -> None:
        """End what `start` began, and whatever is being fetched."""
        self.media.stop()
        if self._fetcher is not None:
            self._fetcher.stop()


def _fetcher(settings: Settings) -> Fetcher:
    download = Downloader(
        Reach.parse(settings.fetch_allow, settings.fetch_ports),
        max_bytes=limits.IMAGE_BYTES_MAX,
        timeout_s=settings.fetch_timeout_s,
    )
    return Fetcher(download, timeout_s=settings.fetch_timeout_s, max_bytes=limits.IMAGE_BYTES_MAX)
