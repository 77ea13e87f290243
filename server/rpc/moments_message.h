// Moments in messages.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/batch_norm.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "server/session/layer_moments.h"

namespace normserve {

Moments ReadMoments(const v1::Moments& message);

// By layer. `field` is what holds the list, such as "layers". INVALID_ARGUMENT: a layer that is there twice.
absl::StatusOr<std::map<std::string, Moments>> ReadLayers(absl::string_view field, const v1::LayerMomentsList& message);

// Of a message with the fields `moments` and `layers`; `prefix` is the path to it, such as "parts[0].".
template <typename Message>
absl::StatusOr<GivenMoments> ReadGiven(absl::string_view prefix, const Message& message) {
  GivenMoments given;
  if (message.has_moments()) given.moments = ReadMoments(message.moments());
  if (message.has_layers()) {
    auto layers = ReadLayers(std::string(prefix) + "layers", message.layers());
    if (!layers.ok()) return layers.status();
    given.layers = *std::move(layers);
  }
  return given;
}

}  // namespace normserve
