// A command's SESSION: a single one, or a model, whose name ends in '/'.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "normserve/client.h"

namespace normserve::cli {

inline bool IsModel(const std::string& name) { return absl::EndsWith(name, "/"); }

// What `call` answers for the session, as a list of one, or for the model. It takes a client::BatchNorm or a
// client::Model.
template <typename T, typename Call>
absl::StatusOr<std::vector<T>> CallNamed(const client::Client& client, const std::string& name, Call call) {
  if (IsModel(name)) return call(client.AttachModel(name));
  absl::StatusOr<T> one = call(client.Attach(name));
  if (!one.ok()) return one.status();
  std::vector<T> all;
  all.push_back(*std::move(one));
  return all;
}

// One line: an object for a session, an array for a model.
template <typename T, typename ToJson>
std::string JsonLine(const std::string& name, const std::vector<T>& answers, ToJson to_json) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const T& answer : answers) all.push_back(to_json(answer));
  return (IsModel(name) ? all : all[0]).dump() + "\n";
}

}  // namespace normserve::cli
