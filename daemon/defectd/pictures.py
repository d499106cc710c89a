"""What the evidence worker has to say, and which unit's event it is about. Used from the loop's thread only."""

from __future__ import annotations

from typing import Sequence

from defectd.evidence.keeper import EvidenceKeeper, Kept
from defectd.faults import Faults
from defectd.line import Line, Tally
from defectd.workers.process import Died, News, Worker, obituary
from defectd.workers.protocol import Kind, Note


class Pictures:
    """The keeper's news, on their way to the lines. Without a keeper nothing happens here."""

    def __init__(self, keeper: EvidenceKeeper | None, lines: Sequence[Line], faults: Faults, tally: Tally) -> None:
        self._keeper, self._lines, self._faults, self._tally = keeper, lines, faults, tally

    def start(self) -> None:
        """Start the worker."""
        for worker in self.workers():
            worker.start()

    def workers(self) -> list[Worker]:
        """The evidence worker, if there is one."""
        return [] if self._keeper is None else [self._keeper.worker]

    def hear(self) -> None:
        """What has been kept, or not."""
        if self._keeper is not None:
            self._on_news(self._keeper.receive())

    def tick(self, now_ns: int) -> None:
        """See Worker.tick."""
        if self._keeper is not None:
            self._on_news(self._keeper.tick(now_ns))

    def _on_news(self, news: list[News | Kept]) -> None:
        for record in news:
            if isinstance(record, Kept):
                self._on_kept(record)
            elif isinstance(record, Died):
                self._tally.counts[f"evidence_{record.reason}"] += 1
                self._faults.begin("evidence", "evidence_worker_down", obituary(record), reason=record.reason)
            elif isinstance(record, Note) and record.kind is Kind.READY:
                self._faults.end("evidence", "evidence_worker_down", "a new worker is ready")

    def _on_kept(self, kept: Kept) -> None:
        code = "not_collected" if kept.is_collected else "not_written"  # they go to different directories
        if kept.trouble:
            self._faults.begin("evidence", code, kept.trouble)
        else:
            self._faults.end("evidence", code, "pictures can be written again")
        for line in self._lines:
            line.keeping.arrived(kept.inspection_id, kept.images)
