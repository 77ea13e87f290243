// How a batch lies in the buffers of a plan, and how bytes get there and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "kernels/batch_norm.h"
#include "kernels/dispatch_plan.h"

namespace normserve {

// A run of bytes that is contiguous in the batch as well as in one window's buffer.
struct TensorSegment {
  size_t block = 0;
  size_t window = 0;
  uint64_t offset = 0;  // in the window's buffer, bytes
  uint64_t size = 0;    // bytes
};

// Visits every segment in the order of the batch's own bytes: a batch in one window is one segment.
void ForEachSegment(const BatchShape& shape, ElementType type, const DispatchPlan& plan,
                    absl::FunctionRef<void(const TensorSegment&)> visit);

// buffers[block][window] is the first byte of that window's buffer.
using WindowBytes = std::vector<std::vector<std::byte*>>;

// Copies the input's pieces to where the plan has them.
void Scatter(const InputTensor& input, const DispatchPlan& plan, const WindowBytes& buffers);

// The batch's bytes in the windows' buffers as pieces, in order; neighbours in memory are one piece.
std::vector<absl::Span<const std::byte>> GatherPieces(const BatchShape& shape, ElementType type,
                                                      const DispatchPlan& plan, const WindowBytes& buffers);

}  // namespace normserve
