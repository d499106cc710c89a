"""The configured sources of bundles."""

from __future__ import annotations

from defectd.download.directory_source import DirectorySource
from defectd.download.fetching import Source
from defectd.download.web_source import WebSource
from defectd.rollout_settings import RolloutSource

__all__ = ["Source", "open_source"]


def open_source(settings: RolloutSource) -> Source:
    """The source that is configured so. Nothing is touched before its `session` is entered."""
    if settings.directory is not None:
        return DirectorySource(settings.alias, settings.directory)
    if settings.url is None or settings.ca is None:
        raise ValueError(f"source {settings.alias!r}: RolloutSource lets none be without a place")
    return WebSource(settings.alias, settings.url, settings.ca)
