#include "server/session/forward_request.h"

namespace normserve {

Fingerprint FingerprintOf(const ForwardRequest& request) {
  const auto choice = [](const auto& optional) { return optional.has_value() ? static_cast<int64_t>(*optional) : -1; };
  FingerprintBuilder fingerprint("Forward");
  AddExpectations(request.guard, fingerprint);
  fingerprint.Add(choice(request.mode)).Add(choice(request.normalize_with));
  if (request.normalize_with == NormalizedWith::kGiven) {
    fingerprint.Add(request.given.count)
        .Add(absl::Span<const double>(request.given.mean))
        .Add(absl::Span<const double>(request.given.m2));
  }
  if (request.normalize_with == NormalizedWith::kSnapshot || request.normalize_with == NormalizedWith::kBlend) {
    fingerprint.Add(absl::string_view(request.snapshot)).Add(request.batch_weight);
  }
  fingerprint.Add(choice(request.update))
      .Add(static_cast<int64_t>(request.return_batch_moments))
      .Add(static_cast<int64_t>(request.return_saved_forward))
      .Add(static_cast<int64_t>(request.return_normalization))
      .Add(static_cast<int64_t>(request.input.type))
      .Add(static_cast<int64_t>(request.input.layout))
      .Add(absl::Span<const int64_t>(request.input.dimensions))
      .Add(absl::Span<const absl::Span<const std::byte>>(request.input.pieces));
  return fingerprint.Finish();
}

}  // namespace normserve
