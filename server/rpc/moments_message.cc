#include "server/rpc/moments_message.h"

#include "absl/strings/str_cat.h"
#include "server/session/field_error.h"

namespace normserve {

Moments ReadMoments(const v1::Moments& message) {
  return {.count = message.count(),
          .mean = {message.mean().begin(), message.mean().end()},
          .m2 = {message.m2().begin(), message.m2().end()},
          .num_samples = message.num_samples()};
}

absl::StatusOr<std::map<std::string, Moments>> ReadLayers(absl::string_view field,
                                                          const v1::LayerMomentsList& message) {
  std::map<std::string, Moments> layers;
  for (const v1::LayerMoments& layer : message.layers()) {
    if (layers.emplace(layer.layer(), ReadMoments(layer.moments())).second) continue;
    return FieldError(absl::StrCat(field, ".layer"),
                      absl::StrCat(field, ".layer \"", layer.layer(), "\" is there twice: send each layer once"));
  }
  return layers;
}

}  // namespace normserve
