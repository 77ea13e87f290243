#include "kernels/self_test.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/host_tensor.h"

namespace normserve {
namespace {

constexpr double kEpsilon = 1e-5;

// Shapes whose plan takes the variant's access, with whole and ragged chunks, and odd and even numbers of channels.
std::vector<BatchShape> ShapesOf(Access access) {
  switch (access) {
    case Access::kRuns:
      return {{2, 3, 32}};
    case Access::kQuads:
      return {{5, 3, 12}};
    case Access::kScalar:
      return {{7, 3, 5}};
    case Access::kColumns:
      return {{37, 3, 1}, {37, 6, 1}};
  }
  return {};
}

// Values of about 1 that no two channels share; `salt` tells tensors apart.
InputTensor MakeTensor(const BatchShape& shape, ElementType type, int salt) {
  std::vector<float> values(static_cast<size_t>(shape.NumValues()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(static_cast<int>((i * 37 + static_cast<size_t>(salt) * 11) % 101) - 41) / 16.0f;
  }
  OutputTensor tensor = WriteTensor(type, values);
  return {.shape = shape, .type = type, .pieces = std::move(tensor.pieces), .owner = std::move(tensor.owner)};
}

std::shared_ptr<const AffineParameters> MakeParameters(int64_t num_features) {
  auto parameters = std::make_shared<AffineParameters>();
  for (int64_t c = 0; c < num_features; ++c) {
    parameters->weight.push_back(1.25f - 0.375f * static_cast<float>(c));
    parameters->bias.push_back(0.3f * static_cast<float>(c));
  }
  return parameters;
}

std::shared_ptr<const NormalizationStatistics> MakeStatistics(int64_t num_features) {
  auto statistics = std::make_shared<NormalizationStatistics>();
  for (int64_t c = 0; c < num_features; ++c) {
    statistics->mean.push_back(0.1 + 0.2 * static_cast<double>(c));
    statistics->variance.push_back(1.7 + 0.3 * static_cast<double>(c));
  }
  return statistics;
}

std::vector<std::byte> Bytes(const OutputTensor& tensor) {
  std::vector<std::byte> bytes;
  for (absl::Span<const std::byte> piece : tensor.pieces) bytes.insert(bytes.end(), piece.begin(), piece.end());
  return bytes;
}

bool SameBits(const ForwardResult& found, const ForwardResult& expected) {
  if (Bytes(found.output) != Bytes(expected.output)) return false;
  if (found.moments.has_value() != expected.moments.has_value()) return false;
  return !expected.moments ||
         (found.moments->mean == expected.moments->mean && found.moments->m2 == expected.moments->m2);
}

bool SameBits(const BackwardResult& found, const BackwardResult& expected) {
  return Bytes(found.grad_input) == Bytes(expected.grad_input) && found.sums.grad_output == expected.sums.grad_output &&
         found.sums.product == expected.sums.product && found.sums.centred_input == expected.sums.centred_input &&
         found.sums.centred_input_squared == expected.sums.centred_input_squared;
}

}  // namespace

std::string VariantName(const ShaderVariant& variant) {
  static constexpr const char* kAccesses[] = {"scalar", "quads", "runs", "columns"};
  static constexpr const char* kTypes[] = {"FLOAT32", "FLOAT16", "BFLOAT16"};
  return absl::StrCat(variant.backward ? "backward, " : "forward, ", kAccesses[static_cast<size_t>(variant.access)],
                      ", ", kTypes[static_cast<size_t>(variant.type)]);
}

size_t SelfTest::IndexOf(const ShaderVariant& variant) {
  return (static_cast<size_t>(variant.backward) * 4 + static_cast<size_t>(variant.access)) * 3 +
         static_cast<size_t>(variant.type);
}

SelfTestResult SelfTest::ResultOf(const State& state) {
  if (state.failed) return SelfTestResult::kFailed;
  return state.done ? SelfTestResult::kPassed : SelfTestResult::kPending;
}

void SelfTest::Begin(const ShaderVariant& variant, absl::FunctionRef<void(ForwardJob, ForwardDone)> forward,
                     absl::FunctionRef<void(BackwardJob, BackwardDone)> backward) {
  const size_t index = IndexOf(variant);
  absl::MutexLock lock(&begin_mutex_);
  {
    absl::MutexLock state_lock(&mutex_);
    State& state = states_[index];
    if (state.begun) return;
    state.begun = true;
    state.incomplete = false;
    state.jobs_left = 2 * static_cast<int>(ShapesOf(variant.access).size());
  }
  if (variant.backward) {
    BeginBackward(index, variant, backward);
  } else {
    BeginForward(index, variant, forward);
    if (variant.type == ElementType::kFloat32 && variant.access == Access::kRuns) BeginSubnormals(forward);
  }
}

// Each shape in training and with given statistics.
void SelfTest::BeginForward(size_t index, const ShaderVariant& variant,
                            absl::FunctionRef<void(ForwardJob, ForwardDone)> submit) {
  for (const BatchShape& shape : ShapesOf(variant.access)) {
    for (const bool given : {false, true}) {
      ForwardJob job{.input = MakeTensor(shape, variant.type, 1),
                     .parameters = MakeParameters(shape.num_features),
                     .epsilon = kEpsilon};
      if (given) job.given = MakeStatistics(shape.num_features);
      ForwardResult expected;
      model_->Forward(job, [&](absl::StatusOr<ForwardResult> result) { expected = *std::move(result); });
      submit(std::move(job), [this, index, expected = std::move(expected)](absl::StatusOr<ForwardResult> result) {
        JobDone(index, result.status(), result.ok() && SameBits(*result, expected));
      });
    }
  }
}

void SelfTest::BeginBackward(size_t index, const ShaderVariant& variant,
                             absl::FunctionRef<void(BackwardJob, BackwardDone)> submit) {
  for (const BatchShape& shape : ShapesOf(variant.access)) {
    for (const bool from_batch : {true, false}) {
      BackwardJob job{.grad_output = MakeTensor(shape, variant.type, 2),
                      .input = MakeTensor(shape, variant.type, 1),
                      .parameters = MakeParameters(shape.num_features),
                      .epsilon = kEpsilon,
                      .normalization = MakeStatistics(shape.num_features),
                      .from_batch = from_batch};
      BackwardResult expected;
      model_->Backward(job, [&](absl::StatusOr<BackwardResult> result) { expected = *std::move(result); });
      submit(std::move(job), [this, index, expected = std::move(expected)](absl::StatusOr<BackwardResult> result) {
        JobDone(index, result.status(), result.ok() && SameBits(*result, expected));
      });
    }
  }
}

// 1e-40 times 1, which stays what it is or becomes 0.
void SelfTest::BeginSubnormals(absl::FunctionRef<void(ForwardJob, ForwardDone)> submit) {
  const BatchShape shape = {1, 1, 16};
  OutputTensor tensor = WriteTensor(ElementType::kFloat32, std::vector<float>(16, 1e-40f));
  ForwardJob job{
      .input = {.shape = shape, .pieces = std::move(tensor.pieces), .owner = std::move(tensor.owner)},
      .parameters = std::make_shared<AffineParameters>(AffineParameters{.weight = {1}, .bias = {0}}),
      .epsilon = 0,
      .given = std::make_shared<NormalizationStatistics>(NormalizationStatistics{.mean = {0}, .variance = {1}})};
  submit(std::move(job), [this](absl::StatusOr<ForwardResult> result) {
    if (!result.ok()) return;
    const std::vector<float> y = ReadTensor({.pieces = result->output.pieces});
    absl::MutexLock lock(&mutex_);
    keeps_subnormals_ = y[0] != 0;
  });
}

// A job that could not be computed (no memory, device lost) says nothing of the variant: it is tested again.
void SelfTest::JobDone(size_t index, absl::Status ran, bool right) {
  absl::MutexLock lock(&mutex_);
  State& state = states_[index];
  if (!ran.ok()) {
    state.incomplete = true;
    state.not_run = std::move(ran);
  } else if (!right) {
    state.failed = true;
  }
  if (--state.jobs_left > 0) return;
  state.done = !state.incomplete;
  state.begun = state.done || state.failed;
  if (state.done) state.not_run = absl::OkStatus();
}

absl::Status SelfTest::not_run(const ShaderVariant& variant) const {
  absl::MutexLock lock(&mutex_);
  return states_[IndexOf(variant)].not_run;
}

SelfTestResult SelfTest::result(const ShaderVariant& variant) const {
  absl::MutexLock lock(&mutex_);
  return ResultOf(states_[IndexOf(variant)]);
}

SelfTestReport SelfTest::Report() const {
  absl::MutexLock lock(&mutex_);
  SelfTestReport report{.keeps_subnormals = keeps_subnormals_};
  for (const bool backward : {false, true}) {
    for (Access access : {Access::kScalar, Access::kQuads, Access::kRuns, Access::kColumns}) {
      for (ElementType type : {ElementType::kFloat32, ElementType::kFloat16, ElementType::kBFloat16}) {
        const ShaderVariant variant = {backward, access, type};
        report.entries.push_back({variant, ResultOf(states_[IndexOf(variant)])});
      }
    }
  }
  return report;
}

}  // namespace normserve
