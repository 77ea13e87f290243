"""Moments in and out of sessions and models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from normserve.caller import Caller, request_id_or_random
from normserve.enumerators import to_wire
from normserve.moments import Moments, write_moments
from normserve.tensor_message import INPUT, Array, Parts, field, form_of, tensor_parts
from normserve.v1 import batch_norm_service_pb2 as pb

Data = Moments | Mapping[str, Moments] | Array


@dataclass(frozen=True, eq=False)
class Observed:
    """What one session has observed.

      count    values per channel, of all that was observed, the newest data too
      moments  of a dry run: what they would be; else None, and Session.moments has them
    """

    name: str
    uid: str
    generation: int
    count: int
    moments: Moments | None


@dataclass(frozen=True, eq=False)
class Merged:
    """How one session's merge stands.

      generation  of the session after the call; of a merge that was committed before, that of its commit
      num_parts   that are here
      committed   whether it is; only then there are
      merged      the moments of all parts together; None with policy "keep_local"
      variance_within, variance_between
                  float64 [C]: the biased variance within the parts, and of their means around the common one; their sum is
                  the biased variance of all values, whatever the policy
    """

    name: str
    uid: str
    generation: int
    num_parts: int
    committed: bool
    merged: Moments | None
    variance_within: npt.NDArray[np.float64]
    variance_between: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """How one session's calibration stands.

      generation   of the session after the call; of a calibration that was committed before, that of its commit
      num_batches  that are here
      committed    whether it is; only then there are
      running_mean_before, running_var_before, running_mean, running_var
                   float64 [C]: what the statistics were, and are now (or in the snapshot)
    """

    name: str
    uid: str
    generation: int
    num_batches: int
    committed: bool
    running_mean_before: npt.NDArray[np.float64]
    running_var_before: npt.NDArray[np.float64]
    running_mean: npt.NDArray[np.float64]
    running_var: npt.NDArray[np.float64]


class _Population:
    """What Session and Model have in common: calls about `_target`, a session's name or a model's with its "/"."""

    _caller: Caller

    @property
    def _target(self) -> str:
        raise NotImplementedError

    def _send(
        self,
        method: str,
        request: Any,
        data: Data | None,
        layout: str,
        timeout: float | None,
        reads: bool = False,
        **guards: Any,
    ) -> bytes:
        """The reply's bytes to a request with `data`; `reads`: it changes nothing."""
        request.name = self._target
        if not reads:
            request.request_id = request_id_or_random(guards.get("request_id"))
            request.expected_uid = guards.get("expected_uid", "")
            if guards.get("expected_generation") is not None:
                request.expected_generation = guards["expected_generation"]
        tensor: Parts = ()
        if isinstance(data, Moments):
            write_moments(data, request.moments, "data")
        elif isinstance(data, Mapping):
            request.layers.SetInParent()
            for layer, moments in data.items():
                write_moments(moments, request.layers.layers.add(layer=layer).moments, f'data["{layer}"]')
        elif data is not None:
            tensor = field(INPUT, tensor_parts(data, form_of(data, layout, "data"), "data"))
        message = b"".join([request.SerializeToString(), *tensor])
        deadline = self._caller.deadline(timeout)
        repeatable = reads or request.request_id != ""
        call: Callable[..., Any] = self._caller.raw(method)
        reply: bytes = self._caller.call(call, message, deadline, repeatable=repeatable, session=self._target)
        return reply

    def _observe(
        self, data: Data | None, part_id: str, dry_run: bool, reset: bool, layout: str, **call: Any
    ) -> list[Observed]:
        request = pb.ObserveRequest(part_id=part_id, dry_run=dry_run, reset=reset)
        reply = pb.ObserveReply.FromString(self._send("Observe", request, data, layout, **call))
        return [
            Observed(
                each.name,
                each.uid,
                each.generation,
                each.moments.count,
                Moments._from_message(each.moments) if dry_run else None,
            )
            for each in reply.sessions
        ]

    def _merge(
        self,
        merge_id: str,
        parts: Mapping[str, Moments] | Mapping[str, Mapping[str, Moments]],
        policy: str | None,
        commit: bool,
        drop: bool,
        **call: Any,
    ) -> list[Merged]:
        request = pb.MergeMomentsRequest(
            merge_id=merge_id, policy=to_wire(pb.MergePolicy, policy, "policy"), commit=commit, drop=drop
        )
        if not isinstance(parts, Mapping):
            raise TypeError(f"parts is of type {type(parts).__name__}: {{id: Moments}} is needed, or {{id: {{layer: Moments}}}}")
        for part_id, part in parts.items():
            message, what = request.parts.add(id=part_id), f'parts["{part_id}"]'
            if isinstance(part, Mapping):
                message.layers.SetInParent()
                for layer, moments in part.items():
                    write_moments(moments, message.layers.layers.add(layer=layer).moments, f'{what}["{layer}"]')
            else:
                write_moments(part, message.moments, what)
        reply = pb.MergeMomentsReply.FromString(self._send("MergeMoments", request, None, "channels_first", **call))
        return [
            Merged(
                each.name,
                each.uid,
                each.generation,
                each.num_parts,
                each.committed,
                Moments._from_message(each.merged) if each.HasField("merged") else None,
                np.array(each.variance_within, np.float64),
                np.array(each.variance_between, np.float64),
            )
            for each in reply.sessions
        ]

    def _calibrate(
        self,
        calibration_id: str,
        data: Data | None,
        part_id: str,
        estimator: str | None,
        commit: bool,
        to_snapshot: str,
        drop: bool,
        layout: str,
        **call: Any,
    ) -> list[Calibrated]:
        request = pb.CalibrateRequest(
            calibration_id=calibration_id,
            part_id=part_id,
            estimator=to_wire(pb.Estimator, estimator, "estimator"),
            commit=commit,
            to_snapshot=to_snapshot,
            drop=drop,
        )
        reply = pb.CalibrateReply.FromString(self._send("Calibrate", request, data, layout, **call))
        return [
            Calibrated(
                each.name,
                each.uid,
                each.generation,
                each.num_batches,
                each.committed,
                np.array(each.before.running_mean, np.float64),
                np.array(each.before.running_var, np.float64),
                np.array(each.after.running_mean, np.float64),
                np.array(each.after.running_var, np.float64),
            )
            for each in reply.sessions
        ]

    def _moments(self, source: str, channels: Any, timeout: float | None) -> Any:
        request = pb.GetMomentsRequest(name=self._target, source=to_wire(pb.MomentsSource, source, "source"))
        if channels is not None:
            request.channel_range.CopyFrom(channels)
        deadline = self._caller.deadline(timeout)
        return self._caller.call(
            self._caller.stub.GetMoments, request, deadline, repeatable=True, session=self._target
        ).sessions


class SessionPopulation(_Population):
    """The calls of a Session about populations; they take what every call of Session takes."""

    def observe(
        self,
        data: Moments | Array | None = None,
        *,
        part_id: str = "",
        dry_run: bool = False,
        reset: bool = False,
        layout: str = "channels_first",
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> Observed:
        """Adds data to what the session has observed, beside its state: the running statistics and the generation stay.

          data     Moments, of a batch or of many together; or a batch as forward takes it, of which the server takes the
                   moments. None: nothing, for `reset`
          part_id  names the data: under one id they count once, however often they are sent; the session remembers its
                   newest 1,024. "": they count as often as they are sent
          dry_run  the answer as if it had been added; nothing is
          reset    begins anew; diagnose(observed=True) compares with what was observed before
          layout   of a batch

        Errors: INVALID_ARGUMENT if the data do not fit or are not finite (NON_FINITE), or if other data came under the
        part id (PART_CONFLICT).
        """
        return self._observe(
            data,
            part_id,
            dry_run,
            reset,
            layout,
            request_id=request_id,
            expected_generation=expected_generation,
            expected_uid=expected_uid,
            timeout=timeout,
        )[0]

    def moments(
        self,
        source: str = "observed",
        *,
        first_channel: int = 0,
        num_channels: int = 0,
        timeout: float | None = None,
    ) -> Moments:
        """The moments that are kept beside the state; count 0 and empty vectors: no data so far. Changes nothing.

          source         "observed" (what observe was told), "last_batch" (the newest that updated the running statistics),
                         "shadow" (of all that updated the shadow moments) or "observed_before" (what had been observed at
                         the last reset that found any)
          first_channel  and num_channels (0: all from there on): only these

        Errors: INVALID_ARGUMENT if there are no such channels.
        """
        channels = pb.ChannelRange(first=first_channel, count=num_channels)
        return Moments._from_message(self._moments(source, channels, timeout)[0].moments)


    def merge(
        self,
        merge_id: str,
        parts: Mapping[str, Moments] = {},
        *,
        policy: str | None = None,
        commit: bool = False,
        drop: bool = False,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> Merged:
        """Brings the moments of sites, workers or batches to a merge, or ends it. Calls may come from many workers, in any
        order: what comes of them depends on the parts alone, to the last bit.

          merge_id  names the merge: every call for it says the same
          parts     {id: Moments}; one that is here already with the same contents counts once
          policy    at the commit: "exact" (as if all values had been one batch), "weighted" (means and variances averaged
                    by count, for comparison: it drops the variance between the parts) or "keep_local" (the session stays as
                    it is). None: "exact"
          commit    merges what is here: the running statistics become those of all values, in one generation
          drop      forgets the merge, which must not be committed; without parts

        Without parts, commit and drop it tells how the merge stands.

        Errors: NOT_FOUND (COLLECTION_NOT_FOUND); FAILED_PRECONDITION if it is committed and parts come late
        (COLLECTION_COMMITTED) or the session keeps no running statistics (NOT_TRACKED); INVALID_ARGUMENT if a part does
        not fit, or came before with other contents (PART_CONFLICT); RESOURCE_EXHAUSTED (LIMIT_REACHED).
        """
        return self._merge(
            merge_id,
            parts,
            policy,
            commit,
            drop,
            request_id=request_id,
            expected_generation=expected_generation,
            expected_uid=expected_uid,
            timeout=timeout,
        )[0]

    def calibrate(
        self,
        calibration_id: str,
        data: Moments | Array | None = None,
        *,
        part_id: str = "",
        estimator: str | None = None,
        commit: bool = False,
        to_snapshot: str = "",
        drop: bool = False,
        layout: str = "channels_first",
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> Calibrated:
        """Brings one batch to a calibration, or ends it: the population's statistics take the place of the running ones.
        Calls may come from many workers; what was sent survives a crash of the server.

          calibration_id  names the calibration: every call for it says the same
          data            one batch's Moments, or a batch as forward takes it, of which the server takes the moments in
                          float32, to about 1e-7. None: none, such as for the commit alone
          part_id         names the batch: sent again it counts once. Required with data
          estimator       at the commit: "pooled" (mean and unbiased variance of all values, whatever the batches' sizes) or
                          "algorithm_2" (Ioffe & Szegedy 2015: E[mean] and m/(m-1) E[variance], batches of one size m).
                          None: "pooled"
          commit          makes the statistics, in one generation; num_batches_tracked becomes the number of batches
          to_snapshot     with commit: they become this snapshot, and the session stays as it is
          drop            forgets the calibration, which must not be committed; without data

        Without data, commit and drop it tells how the calibration stands. Errors as merge.
        """
        return self._calibrate(
            calibration_id,
            data,
            part_id,
            estimator,
            commit,
            to_snapshot,
            drop,
            layout,
            request_id=request_id,
            expected_generation=expected_generation,
            expected_uid=expected_uid,
            timeout=timeout,
        )[0]


class ModelPopulation(_Population):
    """The calls of a Model about populations: each is one RPC and changes all layers or none."""

    def observe(
        self,
        layers: Mapping[str, Moments] | None = None,
        *,
        part_id: str = "",
        dry_run: bool = False,
        reset: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Observed]:
        """Session.observe of several layers, one part together: {layer: what it has observed} of those.

          layers  moments by layer, the session's name without the model's, such as normserve.torch.collect_moments gives;
                  layers that are not in it stay as they are. None: nothing, for `reset`, which then is of all layers

        Errors: INVALID_ARGUMENT if a layer is none of the model's.
        """
        found = self._observe(
            layers, part_id, dry_run, reset, "channels_first", request_id=request_id, timeout=timeout
        )
        return {each.name.removeprefix(self._target): each for each in found}

    def moments(self, source: str = "observed", *, timeout: float | None = None) -> dict[str, Moments]:
        """{layer: Session.moments} of all layers, as of one moment, in the order of their names.

        Errors: RESOURCE_EXHAUSTED (LIMIT_REACHED) if that is more than a reply may be long.
        """
        return {
            each.name.removeprefix(self._target): Moments._from_message(each.moments)
            for each in self._moments(source, None, timeout)
        }

    def merge(
        self,
        merge_id: str,
        parts: Mapping[str, Mapping[str, Moments]] = {},
        *,
        policy: str | None = None,
        commit: bool = False,
        drop: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Merged]:
        """Session.merge of several layers: `parts` is {id: {layer: Moments}}. {layer: how it stands} of the layers that were
        sent parts, or at the commit of all that have some; the others stay as they are."""
        found = self._merge(merge_id, parts, policy, commit, drop, request_id=request_id, timeout=timeout)
        return {each.name.removeprefix(self._target): each for each in found}

    def calibrate(
        self,
        calibration_id: str,
        layers: Mapping[str, Moments] | None = None,
        *,
        part_id: str = "",
        estimator: str | None = None,
        commit: bool = False,
        to_snapshot: str = "",
        drop: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Calibrated]:
        """Session.calibrate of several layers: `layers` is {layer: Moments} of one batch. {layer: how it stands} of the
        layers that were sent a batch, or at the commit of all that have some; the others stay as they are."""
        found = self._calibrate(
            calibration_id,
            layers,
            part_id,
            estimator,
            commit,
            to_snapshot,
            drop,
            "channels_first",
            request_id=request_id,
            timeout=timeout,
        )
        return {each.name.removeprefix(self._target): each for each in found}
