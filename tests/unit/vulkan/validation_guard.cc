#include "tests/unit/vulkan/validation_guard.h"

#include <gtest/gtest.h>

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "kernels/check.h"

namespace normserve::vulkan {
namespace {

struct Capture {
  absl::Mutex mu;
  bool active ABSL_GUARDED_BY(mu) = false;
  std::vector<ValidationMessage> messages ABSL_GUARDED_BY(mu);
};

Capture& TheCapture() {
  static Capture* const capture = new Capture();
  return *capture;
}

}  // namespace

std::function<void(const ValidationMessage&)> FailOnValidationMessage() {
  return [](const ValidationMessage& message) {
    Capture& capture = TheCapture();
    absl::MutexLock lock(&capture.mu);
    if (capture.active) {
      capture.messages.push_back(message);
    } else {
      ADD_FAILURE() << "validation layer: " << message.id << ": " << message.text;
    }
  };
}

Instance& ValidatedInstance() {
  static Instance* const instance = [] {
    auto created = Instance::Create({.validation = true, .on_message = FailOnValidationMessage()});
    if (!created.ok()) std::fprintf(stderr, "%s\n", created.status().ToString().c_str());
    NORMSERVE_CHECK(created.ok());
    return created->release();
  }();
  return *instance;
}

ExpectedValidationMessages::ExpectedValidationMessages() {
  Capture& capture = TheCapture();
  absl::MutexLock lock(&capture.mu);
  NORMSERVE_CHECK(!capture.active);
  capture.active = true;
  capture.messages.clear();
}

ExpectedValidationMessages::~ExpectedValidationMessages() {
  Capture& capture = TheCapture();
  absl::MutexLock lock(&capture.mu);
  capture.active = false;
}

std::vector<ValidationMessage> ExpectedValidationMessages::messages() const {
  Capture& capture = TheCapture();
  absl::MutexLock lock(&capture.mu);
  return capture.messages;
}

}  // namespace normserve::vulkan
