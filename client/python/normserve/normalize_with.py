"""What a forward normalises with, beyond the batch's statistics and the running ones."""

from dataclasses import dataclass
from typing import Any

from normserve.moments import Moments, write_moments
from normserve.v1 import forward_pb2 as pb
from normserve.v1 import statistics_pb2


@dataclass(frozen=True)
class UseSnapshot:
    """Normalise with the running statistics of a snapshot.

    name  of the snapshot
    """

    name: str


@dataclass(frozen=True)
class UseBlend:
    """Normalise between a snapshot's running statistics and the batch's own, to adapt a layer to other data.

    Means and (biased) variances are weighed: (1 - batch_weight) * the snapshot's + batch_weight * the batch's. There is no
    gradient through it.

      snapshot      name of the snapshot
      batch_weight  0, the snapshot alone, to 1, the batch alone. None: 0.1
    """

    snapshot: str
    batch_weight: float | None = None


NormalizeWith = str | Moments | UseSnapshot | UseBlend | None


def normalize_with_fields(what: NormalizeWith) -> dict[str, Any]:
    """The fields of a ForwardRequest that say so. ValueError: it is something else."""
    if what is None:
        return {}
    if isinstance(what, Moments):
        given = statistics_pb2.Moments()
        write_moments(what, given, "normalize_with")
        return {"given": given}
    if isinstance(what, UseSnapshot):
        return {"snapshot": what.name}
    if isinstance(what, UseBlend):
        return {"blend": pb.Blend(snapshot=what.snapshot, batch_weight=what.batch_weight)}
    if what == "batch":
        return {"batch": pb.UseBatch()}
    if what == "running":
        return {"running": pb.UseRunning()}
    raise ValueError(f"normalize_with is {what!r}: 'batch', 'running', Moments, UseSnapshot or UseBlend")
