// Forward's messages are written and read by hand; protobuf's own code is the oracle.
#include "normserve/forward_message.h"

#include <grpcpp/support/slice.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "normserve/v1/batch_norm_service.pb.h"

namespace normserve::client {
namespace {

std::string Join(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  EXPECT_TRUE(buffer.DumpToSingleSlice(&slice).ok());
  return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
}

// `bytes` in pieces of `piece` bytes, as a transport may deliver them.
grpc::ByteBuffer Split(const std::string& bytes, size_t piece) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < bytes.size(); at += piece) slices.emplace_back(bytes.substr(at, piece));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

// A reply of 6 values, with everything set.
v1::ForwardReply Reply() {
  v1::ForwardReply reply;
  reply.set_generation(5);
  reply.set_snapshot_generation(4);
  reply.set_num_batches_tracked(3);
  reply.set_uid("u");
  reply.set_normalized_with(v1::NORMALIZED_WITH_BATCH);
  reply.set_update(v1::UPDATE_RUNNING);
  reply.set_durability(v1::DURABILITY_COMMIT);
  reply.mutable_batch_moments()->set_count(2);
  reply.mutable_batch_moments()->add_mean(0.5);
  reply.mutable_batch_moments()->add_m2(0.25);
  reply.mutable_output()->add_shape(2);
  reply.mutable_output()->add_shape(3);
  const float values[] = {0.f, -1.f, 2.5f, std::numeric_limits<float>::infinity(), 1e-42f, 3e38f};
  reply.mutable_output()->set_data(values, sizeof values);
  return reply;
}

TEST(ForwardMessageTest, ASnapshotAndABlendAreSentAsTheyAreAskedFor) {
  const std::vector<int64_t> shape = {1, 1};
  const std::vector<float> values = {1};
  const auto sent = [&](NormalizeWith with) {
    v1::ForwardRequest message;
    const auto buffer =
        EncodeForwardRequest({.name = "a", .normalize_with = std::move(with), .input = {shape, values}});
    EXPECT_TRUE(buffer.ok() && message.ParseFromString(Join(*buffer)));
    return message;
  };
  EXPECT_EQ(sent(UseSnapshot{"source"}).snapshot(), "source");
  EXPECT_EQ(sent(UseBlend{.snapshot = "source"}).blend().snapshot(), "source");
  EXPECT_FALSE(sent(UseBlend{.snapshot = "source"}).blend().has_batch_weight());
  EXPECT_EQ(sent(UseBlend{.snapshot = "source", .batch_weight = 0.25}).blend().batch_weight(), 0.25);
}

TEST(ForwardMessageTest, RequestIsWhatProtobufReads) {
  const std::vector<int64_t> shape = {2, 3};
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const ForwardRequest request{.name = "a/b",
                               .mode = Mode::kEval,
                               .normalize_with = Moments{.count = 7, .mean = {1, 2, 3}, .m2 = {4, 5, 6}},
                               .update = Update::kRunning,
                               .return_batch_moments = true,
                               .guards = {.request_id = "r", .expected_generation = 0, .expected_uid = "u"},
                               .input = {shape, values}};
  const absl::StatusOr<grpc::ByteBuffer> buffer = EncodeForwardRequest(request);
  ASSERT_TRUE(buffer.ok());
  v1::ForwardRequest message;
  ASSERT_TRUE(message.ParseFromString(Join(*buffer)));
  EXPECT_EQ(message.name(), "a/b");
  EXPECT_EQ(message.mode(), v1::MODE_EVAL);
  EXPECT_EQ(message.given().count(), 7);
  EXPECT_EQ(message.given().m2(2), 6);
  EXPECT_EQ(message.update(), v1::UPDATE_RUNNING);
  EXPECT_TRUE(message.return_batch_moments());
  EXPECT_EQ(message.request_id(), "r");
  EXPECT_TRUE(message.has_expected_generation());
  EXPECT_EQ(message.expected_uid(), "u");
  EXPECT_EQ(message.input().data_type(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(std::vector<int64_t>(message.input().shape().begin(), message.input().shape().end()), shape);
  EXPECT_EQ(message.input().data(), std::string(reinterpret_cast<const char*>(values.data()), 24));
  EXPECT_TRUE(message.GetReflection()->GetUnknownFields(message).empty());
}

TEST(ForwardMessageTest, EmptyBatchIsARequestToo) {
  const std::vector<int64_t> shape = {0, 3};
  const absl::StatusOr<grpc::ByteBuffer> buffer = EncodeForwardRequest({.name = "a", .input = {shape, {}}});
  ASSERT_TRUE(buffer.ok());
  v1::ForwardRequest message;
  ASSERT_TRUE(message.ParseFromString(Join(*buffer)));
  EXPECT_EQ(message.input().shape_size(), 2);
  EXPECT_TRUE(message.input().data().empty());
}

TEST(ForwardMessageTest, InputBeyondOneMessageIsRefused) {
  // Never touched: the size is refused first.
  const absl::Span<const float> huge(reinterpret_cast<const float*>(16), size_t{1} << 29);
  const absl::Status status = EncodeForwardRequest({.name = "a", .input = {{}, huge}}).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
}

TEST(ForwardMessageTest, ReplyIsReadHoweverItIsCut) {
  const std::string bytes = Reply().SerializeAsString();
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    grpc::ByteBuffer buffer = Split(bytes, piece);
    const absl::StatusOr<ForwardResult> result = DecodeForwardReply(buffer);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->generation, 5);
    EXPECT_EQ(result->snapshot_generation, 4);
    EXPECT_EQ(result->num_batches_tracked, 3);
    EXPECT_EQ(result->uid, "u");
    EXPECT_EQ(result->normalized_with, NormalizedWith::kBatch);
    EXPECT_EQ(result->update, Update::kRunning);
    EXPECT_EQ(result->durability, Durability::kCommit);
    ASSERT_TRUE(result->batch_moments.has_value());
    EXPECT_EQ(result->batch_moments->m2, std::vector<double>{0.25});
    EXPECT_EQ(result->output.shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(result->output.values,
              (std::vector<float>{0.f, -1.f, 2.5f, std::numeric_limits<float>::infinity(), 1e-42f, 3e38f}));
  }
}

TEST(ForwardMessageTest, FieldsOfALaterVersionAreSkipped) {
  v1::ForwardReply reply = Reply();
  reply.GetReflection()->MutableUnknownFields(&reply)->AddLengthDelimited(100, "new");
  reply.output().GetReflection()->MutableUnknownFields(reply.mutable_output())->AddVarint(99, 7);
  grpc::ByteBuffer buffer = Split(reply.SerializeAsString(), 5);
  const absl::StatusOr<ForwardResult> result = DecodeForwardReply(buffer);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output.values.size(), 6u);
}

TEST(ForwardMessageTest, TruncatedReplyIsAnErrorOrALesserReply) {
  // A message cut between fields is a legal shorter message; cut anywhere inside the output it must be refused.
  const std::string bytes = Reply().SerializeAsString();
  const size_t output_begins = bytes.size() - Reply().output().ByteSizeLong();
  for (size_t size = output_begins - 1; size < bytes.size(); ++size) {
    grpc::ByteBuffer buffer = Split(bytes.substr(0, size), 7);
    EXPECT_TRUE(absl::IsInternal(DecodeForwardReply(buffer).status())) << size;
  }
}

TEST(ForwardMessageTest, LengthThatLiesIsRefusedBeforeItIsAllocated) {
  // output { data: 2 GiB announced, 4 bytes there }, and the same of output itself.
  const std::string data_lies(
      "\xfa\x01\x0a\x7a\xff\xff\xff\xff\x07"
      "abcd",
      13);
  const std::string output_lies(
      "\xfa\x01\xff\xff\xff\xff\x0f\x7a\x04"
      "abcd",
      13);
  for (const auto& [bytes, text] : {std::pair{data_lies, "announces 2147483647 bytes"}, {output_lies, "cut short"}}) {
    grpc::ByteBuffer buffer = Split(bytes, 13);
    const absl::Status status = DecodeForwardReply(buffer).status();
    EXPECT_TRUE(absl::IsInternal(status)) << status;
    EXPECT_NE(std::string(status.message()).find(text), std::string::npos) << status;
  }
}

TEST(ForwardMessageTest, PayloadThatIsNotWholeFloatsIsRefused) {
  v1::ForwardReply reply;
  reply.mutable_output()->set_data("abcde");
  grpc::ByteBuffer buffer = Split(reply.SerializeAsString(), 100);
  EXPECT_TRUE(absl::IsInternal(DecodeForwardReply(buffer).status()));
}

}  // namespace
}  // namespace normserve::client
