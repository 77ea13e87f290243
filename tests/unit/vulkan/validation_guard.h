// Makes a message of the Vulkan validation layer fail the test that caused it.
#pragma once

#include <functional>
#include <vector>

#include "kernels/vulkan/instance.h"

namespace normserve::vulkan {

// For InstanceOptions::on_message: fails the running test with the message, unless an ExpectedValidationMessages is
// in force. From any thread.
std::function<void(const ValidationMessage&)> FailOnValidationMessage();

// An instance with validation on and that callback, shared by all tests of a program.
Instance& ValidatedInstance();

// While it lives, messages are kept instead of failing the test. One at a time.
class ExpectedValidationMessages {
 public:
  ExpectedValidationMessages();
  ~ExpectedValidationMessages();
  ExpectedValidationMessages(const ExpectedValidationMessages&) = delete;
  ExpectedValidationMessages& operator=(const ExpectedValidationMessages&) = delete;

  // Those that came so far.
  std::vector<ValidationMessage> messages() const;
};

}  // namespace normserve::vulkan
