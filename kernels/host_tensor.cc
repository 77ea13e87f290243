#include "kernels/host_tensor.h"

#include <cstring>
#include <utility>

namespace normserve {
namespace {

std::vector<std::byte> JoinBytes(const InputTensor& input) {
  std::vector<std::byte> bytes;
  bytes.reserve(static_cast<size_t>(input.shape.SizeBytes(input.type)));
  for (absl::Span<const std::byte> piece : input.pieces) bytes.insert(bytes.end(), piece.begin(), piece.end());
  return bytes;
}

std::vector<float> ReadValues(ElementType type, absl::Span<const std::byte> bytes) {
  std::vector<float> values(bytes.size() / static_cast<size_t>(ElementSizeBytes(type)));
  if (type == ElementType::kFloat32) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, sizeof(bits));
    values[i] = FloatFromBits(type, bits);
  }
  return values;
}

class KeptBytes final : public KeptInput {
 public:
  KeptBytes(const BatchShape& shape, ElementType type, std::vector<std::byte> bytes)
      : KeptInput(shape, type, static_cast<int64_t>(bytes.size())), bytes_(std::move(bytes)) {}
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  const std::vector<std::byte> bytes_;
};

}  // namespace

std::vector<float> ReadTensor(const InputTensor& tensor) { return ReadValues(tensor.type, JoinBytes(tensor)); }

OutputTensor WriteTensor(ElementType type, const std::vector<float>& values) {
  auto bytes = std::make_shared<std::vector<std::byte>>(values.size() * static_cast<size_t>(ElementSizeBytes(type)));
  if (type == ElementType::kFloat32) {
    std::memcpy(bytes->data(), values.data(), bytes->size());
  } else {
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t bits = BitsFromFloat(type, values[i]);
      std::memcpy(bytes->data() + 2 * i, &bits, sizeof(bits));
    }
  }
  return OutputTensor{.pieces = {absl::MakeConstSpan(*bytes)}, .owner = bytes};
}

std::shared_ptr<const KeptInput> KeepTensor(const InputTensor& tensor) {
  return std::make_shared<KeptBytes>(tensor.shape, tensor.type, JoinBytes(tensor));
}

std::vector<float> ReadInput(const BackwardJob& job) {
  if (job.kept_input == nullptr) return ReadTensor(job.input);
  return ReadValues(job.kept_input->type(), static_cast<const KeptBytes&>(*job.kept_input).bytes());
}

}  // namespace normserve
