#include "server/rpc/forward_messages.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "normserve/v1/batch_norm_service.pb.h"
#include "tests/unit/server/request_maker.h"
#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

// The message in slices of `slice_bytes` each.
grpc::ByteBuffer Sliced(const std::string& message, size_t slice_bytes) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < message.size(); at += slice_bytes) slices.emplace_back(message.substr(at, slice_bytes));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

std::string Joined(const std::vector<absl::Span<const std::byte>>& pieces) {
  std::string bytes;
  for (const auto& piece : pieces) bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  return bytes;
}

v1::ForwardRequest Message() {
  v1::ForwardRequest message;
  message.set_name("encoder/bn3");
  message.set_request_id("id");
  message.set_expected_generation(0);
  message.set_mode(v1::MODE_EVAL);
  message.mutable_given()->set_count(2);
  message.mutable_given()->add_mean(1.5);
  message.mutable_given()->add_m2(2.5);
  message.set_update(v1::UPDATE_NONE);
  message.set_return_batch_moments(true);
  for (const int64_t dimension : {2, 1, 64}) message.mutable_input()->add_shape(dimension);
  std::string values(512, '\0');
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<char>(i * 7);
  message.mutable_input()->set_data(values);
  return message;
}

void ExpectRead(const absl::StatusOr<ForwardRequest>& request) {
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->name, "encoder/bn3");
  EXPECT_EQ(request->guard.request_id, "id");
  EXPECT_EQ(request->guard.expected_generation, 0);
  EXPECT_EQ(request->mode, Mode::kEval);
  EXPECT_EQ(request->normalize_with, NormalizedWith::kGiven);
  EXPECT_EQ(request->given.mean, std::vector<double>({1.5}));
  EXPECT_EQ(request->update, Update::kNone);
  EXPECT_TRUE(request->return_batch_moments);
  EXPECT_EQ(request->input.dimensions, std::vector<int64_t>({2, 1, 64}));
  EXPECT_EQ(Joined(request->input.pieces), Message().input().data());
}

TEST(ReadForwardRequest, ReadsOverSlicesOfAnySize) {
  const std::string bytes = Message().SerializeAsString();
  for (const size_t slice_bytes : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, size_t{24}, size_t{100}, bytes.size()}) {
    SCOPED_TRACE(slice_bytes);
    ExpectRead(ReadForwardRequest(Sliced(bytes, slice_bytes)));
  }
}

TEST(ReadForwardRequest, LeavesTheValuesWhereTheyAre) {
  const grpc::Slice slice(Message().SerializeAsString());
  const auto request = ReadForwardRequest(grpc::ByteBuffer(&slice, 1));
  ASSERT_TRUE(request.ok());
  ASSERT_EQ(request->input.pieces.size(), 1u);
  const auto* data = reinterpret_cast<const uint8_t*>(request->input.pieces[0].data());
  EXPECT_GE(data, slice.begin());
  EXPECT_LE(data + 512, slice.end());
}

TEST(ReadForwardRequest, ReadsFieldsInAnyOrder) {
  // Each field by itself, last first; within the tensor the payload before the shape.
  v1::ForwardRequest message = Message();
  v1::Tensor data_only, rest = message.input();
  data_only.set_data(message.input().data());
  rest.clear_payload();
  const std::string data = data_only.SerializeAsString() + rest.SerializeAsString();
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream output(&stream);
    output.WriteTag(v1::ForwardRequest::kInputFieldNumber << 3 | 2);
    output.WriteVarint32(static_cast<uint32_t>(data.size()));
    output.WriteString(data);
  }
  message.clear_input();
  bytes += message.SerializeAsString();
  ExpectRead(ReadForwardRequest(Sliced(bytes, 50)));
}

TEST(ReadForwardRequest, TheLastPayloadCountsAndUnknownFieldsAreSkipped) {
  v1::ForwardRequest first;
  first.mutable_input()->set_data("old!");
  v1::ForwardRequest message = Message();
  message.GetReflection()->MutableUnknownFields(&message)->AddVarint(100, 7);
  message.GetReflection()->MutableUnknownFields(&message)->AddFixed32(101, 7);
  message.GetReflection()->MutableUnknownFields(&message)->AddFixed64(102, 7);
  message.GetReflection()->MutableUnknownFields(&message)->AddLengthDelimited(103, "x");
  ExpectRead(ReadForwardRequest(Sliced(first.SerializeAsString() + message.SerializeAsString(), 33)));
}

TEST(ReadForwardRequest, EveryTruncationIsRefusedOrReadsAsWhatIsLeft) {
  const std::string bytes = Message().SerializeAsString();
  for (size_t length = 0; length < bytes.size(); ++length) {
    const std::string part = bytes.substr(0, length);
    v1::ForwardRequest expected;
    const bool whole_fields = expected.ParseFromString(part);
    const auto request = ReadForwardRequest(Sliced(part, 64));
    ASSERT_EQ(request.ok(), whole_fields) << length;
    if (!request.ok()) {
      ASSERT_THAT(request.status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField)) << length;
    }
  }
}

TEST(ReadForwardRequest, DamagedMessagesAgreeWithTheGeneratedParser) {
  const google::protobuf::LogSilencer silence;  // of what is wrong with each
  const std::string bytes = Message().SerializeAsString();
  uint32_t random = 1;
  const auto next = [&random] { return random = random * 1664525 + 1013904223, random >> 8; };
  for (int i = 0; i < 20'000; ++i) {
    std::string damaged = bytes;
    const size_t header_bytes = bytes.size() - 512;
    for (uint32_t flips = next() % 3 + 1; flips > 0; --flips) {
      damaged[next() % header_bytes] = static_cast<char>(next());
    }
    v1::ForwardRequest expected;
    const bool parses = expected.ParseFromString(damaged);
    const auto request = ReadForwardRequest(Sliced(damaged, next() % 200 + 1));
    if (request.ok()) {
      ASSERT_TRUE(parses);
      ASSERT_EQ(request->name, expected.name());
      ASSERT_EQ(Joined(request->input.pieces), expected.input().data());
    }
  }
}

TEST(ReadForwardRequest, UnknownEnumValuesAreNamed) {
  struct Case {
    const char* field;
    void (*spoil)(v1::ForwardRequest&);
  };
  const Case cases[] = {
      {"mode", [](v1::ForwardRequest& m) { m.set_mode(static_cast<v1::Mode>(4)); }},
      {"mode", [](v1::ForwardRequest& m) { m.set_mode(static_cast<v1::Mode>(-1)); }},
      {"update", [](v1::ForwardRequest& m) { m.set_update(static_cast<v1::Update>(4)); }},
      {"input.data_type",
       [](v1::ForwardRequest& m) { m.mutable_input()->set_data_type(static_cast<v1::DataType>(4)); }},
      {"input.layout", [](v1::ForwardRequest& m) { m.mutable_input()->set_layout(static_cast<v1::Layout>(3)); }},
  };
  for (const Case& c : cases) {
    v1::ForwardRequest message = Message();
    c.spoil(message);
    const absl::Status status = ReadForwardRequest(Sliced(message.SerializeAsString(), 64)).status();
    ASSERT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField)) << c.field;
    EXPECT_EQ(GetErrorDetails(status)->metadata.at("field"), c.field);
  }
}

TEST(ReadForwardRequest, ASnapshotAndABlendAreRead) {
  v1::ForwardRequest message = Message();
  message.set_snapshot("source");
  auto request = ReadForwardRequest(Sliced(message.SerializeAsString(), 64));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->normalize_with, NormalizedWith::kSnapshot);
  EXPECT_EQ(request->snapshot, "source");
  message.mutable_blend()->set_snapshot("other");
  request = ReadForwardRequest(Sliced(message.SerializeAsString(), 64));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->normalize_with, NormalizedWith::kBlend);
  EXPECT_EQ(request->snapshot, "other");
  EXPECT_EQ(request->batch_weight, 0.1);
  message.mutable_blend()->set_batch_weight(0);
  request = ReadForwardRequest(Sliced(message.SerializeAsString(), 64));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->batch_weight, 0);
}

TEST(ReadForwardRequest, AFieldKeptForLaterIsRefusedAndNotLeftOutInSilence) {
  v1::ForwardRequest location = Message();
  location.GetReflection()->MutableUnknownFields(&location)->AddLengthDelimited(15, "x");
  EXPECT_THAT(ReadForwardRequest(Sliced(location.SerializeAsString(), 64)).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  v1::ForwardRequest message = Message();
  v1::Tensor* tensor = message.mutable_input();
  tensor->GetReflection()->MutableUnknownFields(tensor)->AddLengthDelimited(14, "x");
  EXPECT_THAT(ReadForwardRequest(Sliced(message.SerializeAsString(), 64)).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
}

TEST(WriteForwardReply, IsTheSerialisedMessageAndGivesTheMemoryBackLast) {
  const std::string values(100'000, 'v');
  auto owner = std::make_shared<const std::string>(values);
  const std::weak_ptr<const std::string> watch = owner;
  const auto* data = reinterpret_cast<const std::byte*>(owner->data());
  ForwardReply reply{.uid = "u",
                     .generation = 3,
                     .snapshot_generation = 2,
                     .num_batches_tracked = 1,
                     .normalized_with = NormalizedWith::kRunning,
                     .update = Update::kRunning,
                     .batch_moments = Moments{.count = 4, .mean = {1}, .m2 = {2}},
                     .dimensions = {1, 1, 25'000},
                     .output = {.pieces = {{data, 60'000}, {data + 60'000, 40'000}}, .owner = std::move(owner)}};
  const auto gate = std::make_shared<CallGate>(10);
  auto buffer = std::make_unique<grpc::ByteBuffer>(WriteForwardReply(reply, "token", *gate->TakeBytes(10)));
  reply.output.owner.reset();
  {
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(buffer->Dump(&slices).ok());
    EXPECT_EQ(reinterpret_cast<const std::byte*>(slices.back().begin()), data + 60'000) << "copied";
    std::string bytes;
    for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    v1::ForwardReply message;
    ASSERT_TRUE(message.ParseFromString(bytes));
    EXPECT_EQ(message.output().data(), values);
    EXPECT_EQ(message.output().shape(2), 25'000);
    EXPECT_EQ(message.output().data_type(), v1::DATA_TYPE_FLOAT32);
    EXPECT_EQ(message.saved_forward(), "token");
    EXPECT_EQ(message.generation(), 3);
    EXPECT_EQ(message.normalized_with(), v1::NORMALIZED_WITH_RUNNING);
    EXPECT_EQ(message.update(), v1::UPDATE_RUNNING);
    EXPECT_EQ(message.batch_moments().m2(0), 2);
    EXPECT_FALSE(gate->TakeBytes(1).ok());
  }
  EXPECT_FALSE(watch.expired());
  buffer.reset();
  EXPECT_TRUE(watch.expired());
  EXPECT_TRUE(gate->TakeBytes(10).ok());
}

}  // namespace
}  // namespace normserve
