// The methods about populations: moments in and out of sessions and models.
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/rpc/batch_norm_service.h"
#include "server/rpc/population_messages.h"
#include "server/session/batch_moments.h"
#include "server/session/field_error.h"

namespace normserve {

using Reactor = BatchNormServiceImpl::Reactor;

namespace {

// The moments of `message`'s batch, of the single session that it names, become what `request` is given; then calls
// `next`, on a thread of the engine's. `message` outlives that.
template <typename Message, typename Request, typename Next>
void TakeBatch(Engine& engine, const std::vector<std::shared_ptr<Session>>& sessions, const Message& message,
               Request request, Next next) {
  if (absl::EndsWith(message.name(), "/")) {
    return std::move(next)(FieldError("batch", absl::StrCat("a batch is of one layer, and \"", message.name(),
                                                            "\" names a model: send layers, or name a session")));
  }
  auto batch = ReadHeldTensor("batch", message.batch());
  if (!batch.ok()) return std::move(next)(batch.status());
  TakeMoments(
      engine, sessions[0], *std::move(batch),
      [request = std::move(request), next = std::move(next)](absl::StatusOr<std::optional<Moments>> moments) mutable {
        if (!moments.ok()) return std::move(next)(moments.status());
        request.given.moments = *std::move(moments);
        request.is_empty = !request.given.moments.has_value();
        std::move(next)(std::move(request));
      });
}

}  // namespace

Reactor* BatchNormServiceImpl::Observe(Context* context, const grpc::ByteBuffer* request_bytes,
                                       grpc::ByteBuffer* reply_bytes) {
  return AnswerChange<v1::ObserveRequest, v1::ObserveReply>(
      context, "Observe", *gate_, *request_bytes, *reply_bytes,
      [this](const auto& message, auto& reply, MessageDone done) {
        auto request = ReadObserveRequest(message);
        if (!request.ok()) return std::move(done)(request.status());
        auto sessions = registry_.FindAll(message.name());
        if (!sessions.ok()) return std::move(done)(sessions.status());
        auto observe = [this, sessions = *sessions, &reply,
                        done = std::move(done)](absl::StatusOr<ObserveRequest> asked) mutable {
          if (!asked.ok()) return std::move(done)(asked.status());
          normserve::Observe(sessions, registry_.ObserveAll(sessions), *std::move(asked),
                             WriteEachAndEnd(std::move(done), [&reply](const ObservedSession& observed) {
                               WriteObserved(observed, *reply.add_sessions());
                             }));
        };
        if (!message.has_batch()) return std::move(observe)(*std::move(request));
        TakeBatch(engine_, *sessions, message, *std::move(request), std::move(observe));
      });
}

Reactor* BatchNormServiceImpl::GetMoments(Context* context, const grpc::ByteBuffer* request_bytes,
                                          grpc::ByteBuffer* reply_bytes) {
  v1::GetMomentsRequest request;
  v1::GetMomentsReply reply;
  return AnswerMessage(context, "GetMoments", *gate_, *request_bytes, request, reply, *reply_bytes,
                       [&]() -> absl::Status {
                         const auto sessions = registry_.FindAll(request.name());
                         if (!sessions.ok()) return sessions.status();
                         return WriteMomentsReply(*sessions, registry_.ObserveAll(*sessions), request,
                                                  description_.max_message_bytes, reply);
                       });
}

}  // namespace normserve
