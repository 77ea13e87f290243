"""A gRPC server that passes every call on to another one, and loses or replaces replies on the way back."""

from concurrent import futures

import grpc


class LossyProxy(grpc.GenericRpcHandler):
    """Use as a context manager; `address` is where it listens. The next call's reply is replaced by the first of
    `failures`, (code, text, trailing metadata), after the server has carried it out; () lets one through."""

    def __init__(self, server_address):
        self._channel = grpc.insecure_channel(server_address)
        self._server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.failures = []
        self.calls = []  # (method, message, metadata, seconds left) of each call that came

    def lose(self, times=1, code=grpc.StatusCode.UNAVAILABLE, trailers=()):
        self.failures = [(code, "lost on the way", trailers)] * times

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()
        self._channel.close()

    def service(self, handler_call_details):
        method = handler_call_details.method

        def pass_on(message, context):
            metadata = dict(handler_call_details.invocation_metadata)
            self.calls.append((method.split("/")[-1], message, metadata, context.time_remaining()))
            failure = self.failures.pop(0) if self.failures else ()
            try:
                reply = self._channel.unary_unary(method)(message)
            except grpc.RpcError as error:
                context.set_trailing_metadata([pair for pair in error.trailing_metadata() if pair[0].endswith("-bin")])
                context.abort(error.code(), error.details())
            if failure:
                code, text, trailers = failure
                context.set_trailing_metadata(trailers)
                context.abort(code, text)
            return reply

        return grpc.unary_unary_rpc_method_handler(pass_on)
