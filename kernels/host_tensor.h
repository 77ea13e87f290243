// Tensors in host memory as float32, for the engines that compute there.
#pragma once

#include <memory>
#include <vector>

#include "kernels/engine.h"

namespace normserve {

// All values, in the tensor's order.
std::vector<float> ReadTensor(const InputTensor& tensor);
// A tensor of `type`, each value rounded to nearest.
OutputTensor WriteTensor(ElementType type, const std::vector<float>& values);
// A copy.
std::shared_ptr<const KeptInput> KeepTensor(const InputTensor& tensor);
// The values of the job's input, kept by KeepTensor or sent again.
std::vector<float> ReadInput(const BackwardJob& job);

}  // namespace normserve
