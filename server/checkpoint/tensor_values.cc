#include "server/checkpoint/tensor_values.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/element_type.h"

namespace normserve {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are read as they lie in memory");

template <typename T>
T Load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

template <typename T, typename Convert>
std::vector<double> ReadAs(absl::string_view bytes, Convert convert) {
  std::vector<double> values(bytes.size() / sizeof(T));
  for (size_t i = 0; i < values.size(); ++i) values[i] = convert(Load<T>(bytes.data() + i * sizeof(T)));
  return values;
}

}  // namespace

bool IsFloatingDtype(absl::string_view dtype) {
  return dtype == "F32" || dtype == "F16" || dtype == "BF16" || dtype == "F64";
}

std::vector<double> ReadValues(absl::string_view dtype, absl::string_view bytes) {
  if (dtype == "F64") return ReadAs<double>(bytes, [](double value) { return value; });
  if (dtype == "F32") return ReadAs<float>(bytes, [](float value) { return static_cast<double>(value); });
  const ElementType type = dtype == "F16" ? ElementType::kFloat16 : ElementType::kBFloat16;
  return ReadAs<uint16_t>(bytes, [type](uint16_t bits) { return static_cast<double>(FloatFromBits(type, bits)); });
}

bool IsCounterDtype(absl::string_view dtype) { return dtype == "I64" || dtype == "I32"; }

int64_t ReadInteger(absl::string_view dtype, absl::string_view bytes) {
  return dtype == "I64" ? Load<int64_t>(bytes.data()) : Load<int32_t>(bytes.data());
}

double RoundingError(double value) {
  if (value == 0) return 0;
  return std::abs((static_cast<double>(static_cast<float>(value)) - value) / value);
}

}  // namespace normserve
