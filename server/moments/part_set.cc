#include "server/moments/part_set.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

absl::Status PartError(ErrorReason reason, absl::string_view id, absl::string_view what,
                       std::map<std::string, std::string> metadata = {}) {
  metadata["part"] = std::string(id);
  return MakeError(absl::StatusCode::kInvalidArgument, reason, absl::StrCat("part \"", id, "\": ", what),
                   std::move(metadata));
}

absl::Status ChannelError(ErrorReason reason, absl::string_view id, absl::string_view field, size_t channel,
                          double value, absl::string_view right) {
  return PartError(reason, id, absl::StrCat(field, " of channel ", channel, " is ", value, ": ", right),
                   {{"field", std::string(field)}, {"channel", absl::StrCat(channel)}});
}

bool SameMoments(const Moments& left, const Moments& right) {
  return left.count == right.count && left.mean == right.mean && left.m2 == right.m2;
}

}  // namespace

absl::Status PartSet::Check(absl::string_view id, const Moments& moments) const {
  if (id.empty()) {
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField,
                     "a part has no id: send one that names the part among all, such as \"site-3/batch-17\"",
                     {{"field", "id"}});
  }
  if (moments.count < 0 || moments.count > kMaxCount) {
    return PartError(ErrorReason::kInvalidField, id,
                     absl::StrCat("count is ", moments.count, ": send the number of values a channel, 0 to 2^53"),
                     {{"field", "count"}});
  }
  if (moments.count == 0) {
    if (moments.mean.empty() && moments.m2.empty()) return absl::OkStatus();
    return PartError(ErrorReason::kInvalidField, id,
                     absl::StrCat("count is 0, yet there are ", moments.mean.size(), " means and ", moments.m2.size(),
                                  " m2: send the number of values a channel, or no values"),
                     {{"field", "count"}});
  }
  for (const auto& [field, values] : {std::pair{"mean", &moments.mean}, std::pair{"m2", &moments.m2}}) {
    if (values->size() != num_features_) {
      return PartError(ErrorReason::kShapeMismatch, id,
                       absl::StrCat(field, " has ", values->size(), " values, the layer has ", num_features_,
                                    " channels: send one value per channel"),
                       {{"field", field}});
    }
    for (size_t c = 0; c < num_features_; ++c) {
      if (!std::isfinite((*values)[c])) {
        return ChannelError(ErrorReason::kNonFinite, id, field, c, (*values)[c], "send finite values");
      }
    }
  }
  for (size_t c = 0; c < num_features_; ++c) {
    if (moments.m2[c] < 0) {
      return ChannelError(ErrorReason::kInvalidField, id, "m2", c, moments.m2[c],
                          "send the sum of squared deviations from the mean, zero or more");
    }
    if (moments.count == 1 && moments.m2[c] != 0) {
      return ChannelError(ErrorReason::kInvalidField, id, "m2", c, moments.m2[c],
                          "with count 1 it is 0 (is count the number of batches, not of values?)");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> PartSet::IsNew(absl::string_view id, const Moments& moments, int64_t count) const {
  const auto found = parts_.find(id);
  if (found != parts_.end()) {
    if (SameMoments(found->second, moments)) return false;
    return PartError(ErrorReason::kInvalidField, id,
                     absl::StrCat("came before with other moments (count ", found->second.count, ", now ",
                                  moments.count, "): send each part once, or under an id of its own"),
                     {{"field", "id"}});
  }
  if (moments.count > kMaxCount - count) {
    return PartError(ErrorReason::kInvalidField, id,
                     absl::StrCat("count is ", moments.count, ", and the other parts have ", count,
                                  ": send at most 2^53 values a channel in all"),
                     {{"field", "count"}});
  }
  return true;
}

absl::Status PartSet::Add(absl::string_view id, Moments moments) {
  if (absl::Status status = Check(id, moments); !status.ok()) return status;
  const absl::StatusOr<bool> is_new = IsNew(id, moments, count_);
  if (!is_new.ok()) return is_new.status();
  if (!*is_new) return absl::OkStatus();
  count_ += moments.count;
  parts_.emplace(id, std::move(moments));
  return absl::OkStatus();
}

absl::Status PartSet::Merge(const PartSet& other) {
  if (other.num_features_ != num_features_) {
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch,
                     absl::StrCat("parts of ", other.num_features_, " channels cannot join parts of ", num_features_,
                                  " channels: send those of one layer"));
  }
  int64_t count = count_;
  for (const auto& [id, moments] : other.parts_) {
    const absl::StatusOr<bool> is_new = IsNew(id, moments, count);
    if (!is_new.ok()) return is_new.status();
    if (*is_new) count += moments.count;
  }
  parts_.insert(other.parts_.begin(), other.parts_.end());
  count_ = count;
  return absl::OkStatus();
}

std::vector<PartView> PartSet::Views() const {
  std::vector<PartView> views;
  views.reserve(parts_.size());
  for (const auto& [id, moments] : parts_) views.push_back({.id = id, .moments = &moments});
  return views;
}

int64_t PartSet::SizeBytes() const {
  int64_t size = 0;
  for (const auto& [id, moments] : parts_) {
    size += 160 + static_cast<int64_t>(id.size() + sizeof(double) * (moments.mean.size() + moments.m2.size()));
  }
  return size;
}

}  // namespace normserve
