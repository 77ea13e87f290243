#include "tests/conformance/hash.h"

#include <cmath>
#include <limits>

namespace normserve::conformance {
namespace {

class Hash {
 public:
  void AddBytes(const void* bytes, size_t size) {
    for (size_t i = 0; i < size; ++i) {
      value_ = (value_ ^ static_cast<const unsigned char*>(bytes)[i]) * 0x100000001b3u;
    }
  }
  template <typename Number>
  void Add(const std::vector<Number>& values) {
    for (Number value : values) {
      if (std::isnan(value)) value = std::numeric_limits<Number>::quiet_NaN();
      AddBytes(&value, sizeof(value));
    }
  }
  void Add(const OutputTensor& tensor) {
    for (absl::Span<const std::byte> piece : tensor.pieces) AddBytes(piece.data(), piece.size());
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace

uint64_t HashOf(const std::vector<float>& values) {
  Hash hash;
  hash.Add(values);
  return hash.value();
}

uint64_t HashOf(const std::vector<double>& values) {
  Hash hash;
  hash.Add(values);
  return hash.value();
}

uint64_t HashOf(const ForwardResult& result) {
  Hash hash;
  hash.Add(result.output);
  if (result.moments) {
    hash.Add(result.moments->mean);
    hash.Add(result.moments->m2);
  }
  return hash.value();
}

uint64_t HashOf(const BackwardResult& result) {
  Hash hash;
  hash.Add(result.grad_input);
  hash.Add(result.sums.grad_output);
  hash.Add(result.sums.product);
  hash.Add(result.sums.centred_input);
  hash.Add(result.sums.centred_input_squared);
  return hash.value();
}

}  // namespace normserve::conformance
