// A request's content in 128 bits, to tell a repeat from another request under the same id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace normserve {

// XXH3-128. Not proof against a client that wants a collision: it could only deceive itself.
struct Fingerprint {
  uint64_t low = 0;
  uint64_t high = 0;
  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
};

// Takes fields in order. Lengths are taken too, so that two fields never run together.
class FingerprintBuilder {
 public:
  // `method` tells requests of different methods apart.
  explicit FingerprintBuilder(absl::string_view method);
  ~FingerprintBuilder();
  FingerprintBuilder(const FingerprintBuilder&) = delete;
  FingerprintBuilder& operator=(const FingerprintBuilder&) = delete;

  FingerprintBuilder& Add(int64_t value);
  FingerprintBuilder& Add(double value);  // by its bits
  FingerprintBuilder& Add(absl::string_view text);
  FingerprintBuilder& Add(absl::Span<const int64_t> values);
  FingerprintBuilder& Add(absl::Span<const float> values);
  FingerprintBuilder& Add(absl::Span<const double> values);
  // The joined bytes; where they are cut does not matter.
  FingerprintBuilder& Add(absl::Span<const absl::Span<const std::byte>> pieces);

  Fingerprint Finish() const;

 private:
  void AddBytes(const void* data, size_t size_bytes);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace normserve
