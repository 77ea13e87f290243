// A serialised request taken apart: all but its tensors' values, and where those lie.
#pragma once

#include <grpcpp/support/slice.h>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace normserve {

struct SplitMessage {
  // The message as it would be with empty data in its tensors: for the generated parser, which knows all the rules.
  std::string header;
  // The tensor's values (field 31 of the request), in pieces that point into the slices.
  std::vector<absl::Span<const std::byte>> values;
  // BackwardRequest: those of resent.input.
  std::vector<absl::Span<const std::byte>> resent_values;
};

// Reads over the slices without joining them. If data comes more than once, the last counts, as everywhere in Protocol
// Buffers. INVALID_ARGUMENT: the message is truncated or malformed.
absl::StatusOr<SplitMessage> SplitForwardRequest(absl::Span<const grpc::Slice> slices);
absl::StatusOr<SplitMessage> SplitBackwardRequest(absl::Span<const grpc::Slice> slices);

}  // namespace normserve
