#include "tests/conformance/engines.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/reference_engine.h"

namespace normserve::conformance {

const std::vector<EngineUnderTest>& EnginesUnderTest() {
  static const auto* engines = new std::vector<EngineUnderTest>{
      {"reference", [] { return absl::StatusOr<std::unique_ptr<Engine>>(std::make_unique<ReferenceEngine>()); }},
  };
  return *engines;
}

absl::StatusOr<Engine*> SharedEngine(const std::string& name) {
  // Destroyed at exit, so that an engine that does not stop is seen.
  static absl::Mutex mutex(absl::kConstInit);
  static std::map<std::string, absl::StatusOr<std::unique_ptr<Engine>>> made;
  absl::MutexLock lock(&mutex);
  auto found = made.find(name);
  if (found == made.end()) {
    absl::StatusOr<std::unique_ptr<Engine>> engine = absl::NotFoundError(absl::StrCat("no engine called ", name));
    for (const EngineUnderTest& candidate : EnginesUnderTest()) {
      if (candidate.name == name) engine = candidate.factory();
    }
    found = made.emplace(name, std::move(engine)).first;
  }
  if (!found->second.ok()) return found->second.status();
  return found->second->get();
}

}  // namespace normserve::conformance
