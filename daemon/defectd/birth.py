"""What this station is and speaks, as retained on `birth`."""

from __future__ import annotations

from defectd import __version__
from defectd.camera.feed import CameraFeed
from defectd.clock import utc_now
from defectd.engine.serving import Engines
from defectd.inspection import events, messages
from defectd.inspection.recipe import Recipe
from defectd.inspection.record import StationIdentity
from defectd.messaging.outbox import Outbox
from defectd.settings import Settings


def birth(
    settings: Settings,
    identity: StationIdentity,
    recipe: Recipe,
    outbox: Outbox,
    feeds: list[CameraFeed],
    engines: Engines,
) -> events.Birth:
    """As it is now; asked on every connection, and whenever faults or the engine change."""
    return events.Birth(
        station=identity.station,
        boot_id=identity.boot_id,
        ts=utc_now(),
        defectd=__version__,
        epoch=outbox.epoch,
        next_seq=outbox.next_seq(),
        schemas={
            f"evt/{message.stream}": message.model_fields["schema_"].default for message in messages.STORED_EVENTS
        },
        settings_sha256=identity.settings_sha256,
        recipe=identity.recipe,
        classes=[
            events.ClassCode(class_name=rule.class_name, code=rule.code, min_confidence=rule.min_confidence)
            for rule in recipe.rules
        ],
        deadline_ms=settings.inspection.deadline_ms,
        cameras=[
            events.CameraInfo(
                name=feed.name, kind=feed.plan.kind, mode=feed.plan.mode, first_trigger=feed.plan.first_trigger
            )
            for feed in feeds
        ],
        model=engines.serving.model,
        warmup=engines.serving.warmup,
    )
