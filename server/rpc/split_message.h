// A serialised ForwardRequest taken apart: all but the tensor's values, and where those lie.
#pragma once

#include <grpcpp/support/slice.h>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace normserve {

struct SplitMessage {
  // The message as it would be with an empty input.data: for the generated parser, which knows all the rules.
  std::string header;
  // input.data, in pieces that point into the slices.
  std::vector<absl::Span<const std::byte>> values;
};

// Reads over the slices without joining them. If input.data comes more than once, the last counts, as everywhere in
// Protocol Buffers. INVALID_ARGUMENT: the message is truncated or malformed.
absl::StatusOr<SplitMessage> SplitForwardRequest(absl::Span<const grpc::Slice> slices);

}  // namespace normserve
