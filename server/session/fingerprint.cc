#include "server/session/fingerprint.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace normserve {

struct FingerprintBuilder::State {
  XXH3_state_t xxh;
};

FingerprintBuilder::FingerprintBuilder(absl::string_view method) : state_(std::make_unique<State>()) {
  XXH3_128bits_reset(&state_->xxh);
  Add(method);
}

FingerprintBuilder::~FingerprintBuilder() = default;

void FingerprintBuilder::AddBytes(const void* data, size_t size_bytes) {
  XXH3_128bits_update(&state_->xxh, data, size_bytes);
}

FingerprintBuilder& FingerprintBuilder::Add(int64_t value) {
  AddBytes(&value, sizeof(value));
  return *this;
}

FingerprintBuilder& FingerprintBuilder::Add(double value) {
  AddBytes(&value, sizeof(value));
  return *this;
}

FingerprintBuilder& FingerprintBuilder::Add(absl::string_view text) {
  Add(static_cast<int64_t>(text.size()));
  AddBytes(text.data(), text.size());
  return *this;
}

FingerprintBuilder& FingerprintBuilder::Add(absl::Span<const int64_t> values) {
  Add(static_cast<int64_t>(values.size()));
  AddBytes(values.data(), values.size() * sizeof(int64_t));
  return *this;
}

FingerprintBuilder& FingerprintBuilder::Add(absl::Span<const float> values) {
  Add(static_cast<int64_t>(values.size()));
  AddBytes(values.data(), values.size() * sizeof(float));
  return *this;
}

FingerprintBuilder& FingerprintBuilder::Add(absl::Span<const double> values) {
  Add(static_cast<int64_t>(values.size()));
  AddBytes(values.data(), values.size() * sizeof(double));
  return *this;
}

FingerprintBuilder& FingerprintBuilder::Add(absl::Span<const absl::Span<const std::byte>> pieces) {
  int64_t size_bytes = 0;
  for (const auto& piece : pieces) size_bytes += static_cast<int64_t>(piece.size());
  Add(size_bytes);
  for (const auto& piece : pieces) AddBytes(piece.data(), piece.size());
  return *this;
}

Fingerprint FingerprintBuilder::Finish() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(&state_->xxh);
  return Fingerprint{.low = hash.low64, .high = hash.high64};
}

}  // namespace normserve
