"""What compiling takes, and whether there was any: time, memory, and the compiler's own counters."""

from __future__ import annotations

import contextlib
import resource
from collections import Counter
from pathlib import Path

from torch._dynamo.utils import counters

from defectd.clock import monotonic_ns, ms_between
from defectd.workers.child import Unusable

_HEADROOM_MB = 1500
"""Free memory below which compiling is not begun: on an x86_64 CPU it took 1 GB with a network of 1.6 MB."""


def check_headroom(cache: Path, available_mb: int | None) -> None:
    """Raises Unusable if there is too little memory to compile into *cache*. What lies there already needs none."""
    if available_mb is not None and available_mb < _HEADROOM_MB and not (cache / "fxgraph").is_dir():
        raise Unusable(
            f"compiling needs {_HEADROOM_MB} MB of free memory, and there are {available_mb} MB: free some, or "
            'set runtime = "torchscript" or "auto"'
        )


class Meter:
    """Measures from its making to its `note`."""

    def __init__(self, on_cuda: bool) -> None:
        self._on_cuda, self._begun_ns, self._before = on_cuda, monotonic_ns(), _counted()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from now

    def note(self) -> str:
        """What was done since, in words."""
        seconds = ms_between(self._begun_ns, monotonic_ns()) / 1000
        counted = _counted() - self._before
        if not self._on_cuda:
            counted["inductor.cudagraph_skips"] = 0  # there are none to miss
        return describe(counted, seconds, _peak_mb())


def describe(counted: Counter[str], seconds: float, peak_mb: int) -> str:
    """The note on what the compiler has *counted*. A torch that does not count what came from its cache, compiled."""
    made = counted["inductor.fxgraph_cache_miss"] + counted["inductor.fxgraph_cache_bypass"]
    found = counted["inductor.fxgraph_cache_hit"] + counted["aot_autograd.autograd_cache_hit"]
    skipped = counted["inductor.cudagraph_skips"]
    graphs = ", without CUDA graphs of its own" if skipped else ""
    if found and not made:
        return f"from cache in {seconds:.1f} s, nothing compiled (peak memory {peak_mb} MB){graphs}"
    return f"compiled in {seconds:.1f} s (peak memory {peak_mb} MB){graphs}"


def _counted() -> Counter[str]:
    groups = ("inductor", "aot_autograd")
    return Counter({f"{group}.{name}": int(count) for group in groups for name, count in counters[group].items()})


def _peak_mb() -> int:
    """Of this process since its meter began, plus the largest compiler that it has started."""
    own_kb = 0
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                own_kb = int(line.split()[1])
    children_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own_kb + children_kb) // 1024
