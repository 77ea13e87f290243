#include "kernels/tensor_segments.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

namespace normserve {
namespace {

// Visits `values` values of a block's only channel, from value `begin` on, window by window.
void VisitWindows(const std::vector<PlanWindow>& windows, ElementType type, size_t block, int64_t begin, int64_t values,
                  absl::FunctionRef<void(const TensorSegment&)> visit) {
  // All windows but the last have the length of the first.
  auto window = static_cast<size_t>(begin / windows.front().value_count);
  while (values > 0) {
    const int64_t at = begin - windows[window].value_begin;
    const int64_t count = std::min(values, windows[window].value_count - at);
    visit({.block = block,
           .window = window,
           .offset = static_cast<uint64_t>(at * ElementSizeBytes(type)),
           .size = static_cast<uint64_t>(count * ElementSizeBytes(type))});
    begin += count;
    values -= count;
    ++window;
  }
}

}  // namespace

void ForEachSegment(const BatchShape& shape, ElementType type, const DispatchPlan& plan,
                    absl::FunctionRef<void(const TensorSegment&)> visit) {
  if (plan.blocks.size() == 1 && plan.blocks[0].windows.size() == 1) {
    visit({.size = static_cast<uint64_t>(shape.SizeBytes(type))});
    return;
  }
  for (int64_t n = 0; n < shape.batch_size; ++n) {
    for (size_t b = 0; b < plan.blocks.size(); ++b) {
      const PlanBlock& block = plan.blocks[b];
      if (block.windows.size() > 1) {
        VisitWindows(block.windows, type, b, n * shape.spatial_size, shape.spatial_size, visit);
      } else {
        const auto size = static_cast<uint64_t>(block.channel_count * shape.spatial_size * ElementSizeBytes(type));
        visit({.block = b, .offset = static_cast<uint64_t>(n) * size, .size = size});
      }
    }
  }
}

void Scatter(const InputTensor& input, const DispatchPlan& plan, const WindowBytes& buffers) {
  auto piece = input.pieces.begin();
  size_t at = 0;  // in *piece
  ForEachSegment(input.shape, input.type, plan, [&](const TensorSegment& segment) {
    std::byte* to = buffers[segment.block][segment.window] + segment.offset;
    for (uint64_t left = segment.size; left > 0;) {
      while (piece != input.pieces.end() && at == piece->size()) ++piece, at = 0;
      NORMSERVE_CHECK(piece != input.pieces.end());
      const size_t count = std::min<size_t>(left, piece->size() - at);
      std::memcpy(to, piece->data() + at, count);
      to += count;
      at += count;
      left -= count;
    }
  });
}

std::vector<absl::Span<const std::byte>> GatherPieces(const BatchShape& shape, ElementType type,
                                                      const DispatchPlan& plan, const WindowBytes& buffers) {
  std::vector<absl::Span<const std::byte>> pieces;
  ForEachSegment(shape, type, plan, [&](const TensorSegment& segment) {
    const std::byte* from = buffers[segment.block][segment.window] + segment.offset;
    if (!pieces.empty() && pieces.back().data() + pieces.back().size() == from) {
      pieces.back() = {pieces.back().data(), pieces.back().size() + segment.size};
    } else {
      pieces.emplace_back(from, segment.size);
    }
  });
  return pieces;
}

}  // namespace normserve
