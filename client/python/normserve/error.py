"""What a call fails with."""

from __future__ import annotations

import grpc

from normserve.v1 import error_details_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


class Error(Exception):
    """A call failed.

      code         grpc.StatusCode, such as INVALID_ARGUMENT
      reason       the server's reason for machines, such as "SHAPE_MISMATCH" (proto/normserve/v1/error_details.proto);
                   "" if the failure is not one that the server explained (no connection, deadline)
      message      the server's text: what is wrong and what would be right
      metadata     what the reason is about, such as {"field": "input.shape"}
      retry_delay  how long the server asks callers to wait before they repeat the call, seconds; None: it does not ask

    UNAVAILABLE, DEADLINE_EXCEEDED and CANCELLED mean that the outcome of a change is unknown: repeat it with the same
    request_id, which the caller must have given for that.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str = "",
        message: str = "",
        metadata: dict[str, str] | None = None,
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(code, reason, message, metadata, retry_delay)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_delay = retry_delay

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.code.name}{reason}: {self.message}"


def from_rpc_error(error: grpc.RpcError) -> Error:
    """The same failure with what its status details say."""
    reason, metadata, retry_delay = "", {}, None
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS_KEY:
            continue
        for detail in error_details_pb2.StatusDetails.FromString(value).details:
            if detail.type_url == _ERROR_INFO:
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.type_url == _RETRY_INFO:
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                retry_delay = delay.seconds + delay.nanos / 1e9
    return Error(error.code(), reason, error.details() or "", metadata, retry_delay)
