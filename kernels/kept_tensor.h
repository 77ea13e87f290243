// An input in the engine's buffers.
#pragma once

#include <utility>

#include "kernels/engine.h"
#include "kernels/tensor_buffers.h"

namespace normserve {

class KeptTensor final : public KeptInput {
 public:
  // `buffers` hold the input as its plan cuts it up; they need no host side any more.
  KeptTensor(const BatchShape& shape, ElementType type, TensorBuffers buffers)
      : KeptInput(shape, type, buffers.size_bytes()), buffers_(std::move(buffers)) {}

  const TensorBuffers& buffers() const { return buffers_; }

 private:
  const TensorBuffers buffers_;
};

}  // namespace normserve
