// Forwards as tests write them.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "server/session/forward_request.h"

namespace normserve {

inline ForwardRequest MakeForward(std::string name, std::vector<int64_t> dimensions, std::vector<float> values,
                                  std::string request_id = "") {
  auto owner = std::make_shared<const std::vector<float>>(std::move(values));
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(owner->data()),
                                          owner->size() * sizeof(float));
  return ForwardRequest{.name = std::move(name),
                        .guard = {.request_id = std::move(request_id)},
                        .input = {.dimensions = std::move(dimensions), .pieces = {bytes}, .owner = owner}};
}

inline std::vector<float> Values(const OutputTensor& output) {
  std::string bytes;
  for (const auto& piece : output.pieces) bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace normserve
