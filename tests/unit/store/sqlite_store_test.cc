#include "server/store/sqlite_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <latch>
#include <thread>

#include "tests/unit/server/status_matchers.h"
#include "tests/unit/store/scratch_directory.h"
#include "tests/unit/store/store_calls.h"

namespace normserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kUnavailable = absl::StatusCode::kUnavailable;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class SqliteStoreTest : public ::testing::Test {
 protected:
  // Closes the store and opens it again.
  void Reopen() {
    store_ = nullptr;
    auto opened = SqliteStore::Open({.directory = directory_.path()});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }
  void SetUp() override { Reopen(); }

  StoredSession Load(const std::string& uid) {
    auto session = store_->Load(uid);
    EXPECT_TRUE(session.ok()) << session.status();
    return session.ok() ? *session : StoredSession();
  }

  StoredMemory LoadMemory(const std::string& uid) {
    auto memory = store_->LoadMemory(uid);
    EXPECT_TRUE(memory.ok()) << memory.status();
    return memory.ok() ? *memory : StoredMemory();
  }

  // Runs `queue` while the writer is busy, so that what it writes is taken as one transaction.
  void QueueTogether(const std::function<void()>& queue) {
    std::latch queued(1);
    std::latch busy(1);
    // Refused, and answered on the writer's thread.
    StoreWrite nobody;
    nobody.sessions.push_back(Change("nobody", 1, 1));
    store_->Write(std::move(nobody), [&](absl::Status) {
      busy.count_down();
      queued.wait();
    });
    busy.wait();
    queue();
    queued.count_down();
  }

  ScratchDirectory directory_;
  std::unique_ptr<SqliteStore> store_;
};

MATCHER_P3(IsVector, kind, version, data, "") { return arg.kind == kind && arg.version == version && arg.data == data; }

TEST_F(SqliteStoreTest, EverythingWrittenComesBackAfterAReopen) {
  std::string all_bytes;
  for (int i = 0; i < 3 * 5000; ++i) all_bytes.push_back(static_cast<char>(i % 256));
  SessionWrite creation = Creation("a");
  creation.current = {
      {VectorKind::kParameters, 1, "p1"}, {VectorKind::kRunning, 1, "r1"}, {VectorKind::kShadow, 1, "s"}};
  creation.request = StoredRequest{1, 1, std::string("id\0one", 6), "answer one"};
  StoreWrite create{.sessions = {creation}, .server_request = StoredRequest{7, 1, "create", all_bytes}};
  ASSERT_TRUE(Put(*store_, create).ok());
  SessionWrite change = Change("a", 1, 2);
  change.head = all_bytes;
  change.current = {{VectorKind::kRunning, 2, all_bytes}, {VectorKind::kShadow, 2, ""}};
  change.kept = {{VectorKind::kRunning, 1, "r1"}, {VectorKind::kParameters, 0, "p0"}, {VectorKind::kRunning, 0, "r0"}};
  change.request = StoredRequest{2, 2, "two", "answer two"};
  change.snapshot = StoredSnapshot{"second", all_bytes};
  ASSERT_TRUE(Put(*store_, change, Durability::kFlush).ok());
  change = Change("a", 1, 3);
  change.dropped = {{VectorKind::kRunning, 0}};
  change.request = StoredRequest{1, 3, "three", ""};
  change.snapshot = StoredSnapshot{"first", ""};
  change.collected = {{"merge/m", "one", 10, all_bytes}, {"merge/m", "two", 20, ""}, {"merge/n", "one", 5, "n1"}};
  change.history = {{5, "replaced"}, {2, all_bytes}};
  ASSERT_TRUE(Put(*store_, change).ok());
  change = Change("a", 1, 4);
  change.snapshot = StoredSnapshot{"second", "again"};
  change.deleted_snapshot = "second";
  change.dropped_collections = {"merge/m"};
  change.collected = {{"merge/m", "", 7, all_bytes}};
  change.history = {{5, "five"}};
  ASSERT_TRUE(Put(*store_, change).ok());

  for (int round = 0; round < 2; ++round) {
    const StoredSession session = Load("a");
    const StoredMemory memory = LoadMemory("a");
    EXPECT_EQ(session.head.name, "name of a");
    EXPECT_EQ(session.head.uid, "a");
    EXPECT_EQ(session.head.epoch, 1 + round);
    EXPECT_EQ(session.head.sequence, 4);
    EXPECT_EQ(session.head.record, "head of a at 4");
    EXPECT_EQ(session.head.num_snapshots, 2);
    EXPECT_THAT(session.current,
                ElementsAre(IsVector(VectorKind::kParameters, 1, "p1"), IsVector(VectorKind::kRunning, 2, all_bytes)));
    EXPECT_THAT(memory.kept,
                ElementsAre(IsVector(VectorKind::kParameters, 0, "p0"), IsVector(VectorKind::kRunning, 1, "r1")));
    ASSERT_EQ(memory.requests.size(), 2u);
    EXPECT_EQ(memory.requests[0].request_id, "two");
    EXPECT_EQ(memory.requests[0].slot, 2);
    EXPECT_EQ(memory.requests[1].request_id, "three");
    EXPECT_EQ(memory.requests[1].sequence, 3);
    EXPECT_EQ(memory.requests[1].record, "");
    ASSERT_EQ(session.snapshots.size(), 2u);
    EXPECT_EQ(session.snapshots[0].name, "first");
    EXPECT_EQ(session.snapshots[1].record, "again");
    ASSERT_EQ(session.collected.size(), 2u);
    EXPECT_EQ(session.collected[0].part, "");
    EXPECT_EQ(session.collected[0].record, all_bytes);
    EXPECT_EQ(session.collected[1].collection, "merge/n");
    EXPECT_EQ(session.head.collection_bytes, 12);
    ASSERT_EQ(session.history.size(), 2u);
    EXPECT_EQ(session.history[0].slot, 2);
    EXPECT_EQ(session.history[0].record, all_bytes);
    EXPECT_EQ(session.history[1].record, "five");
    const auto requests = store_->ListServerRequests();
    ASSERT_TRUE(requests.ok() && requests->size() == 1);
    EXPECT_EQ(requests->front().slot, 7);
    EXPECT_EQ(requests->front().record, all_bytes);
    const auto heads = store_->ListSessions();
    ASSERT_TRUE(heads.ok() && heads->size() == 1);
    EXPECT_EQ(heads->front().num_snapshots, 2);
    EXPECT_EQ(heads->front().collection_bytes, 12);
    EXPECT_EQ(heads->front().record, "head of a at 4");
    if (round == 0) Reopen();
  }
}

TEST_F(SqliteStoreTest, ItsFilesAreThisUsersAlone) {
  ASSERT_TRUE(Put(*store_, Creation("a")).ok());
  for (const char* name : {"normserve.db", "normserve.db-wal", "normserve.db-shm", "normserve.lock"}) {
    struct stat entry = {};
    ASSERT_EQ(stat(directory_.file(name).c_str(), &entry), 0) << name;
    EXPECT_EQ(entry.st_mode & 0777, 0600u) << name;
  }
}

TEST_F(SqliteStoreTest, ADeletedSessionLeavesNothingToOneOfTheSameName) {
  SessionWrite creation = Creation("a");
  creation.current = {{VectorKind::kRunning, 1, "r"}};
  creation.kept = {{VectorKind::kRunning, 0, "k"}};
  creation.request = StoredRequest{1, 1, "id", "answer"};
  creation.snapshot = StoredSnapshot{"snapshot", "record"};
  creation.collected = {{"merge/m", "one", 10, "record"}};
  ASSERT_TRUE(Put(*store_, creation).ok());
  ASSERT_TRUE(Put(*store_, Deletion("a", 1, 2)).ok());
  EXPECT_THAT(store_->Load("a").status(), Fails(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));
  EXPECT_THAT(store_->LoadMemory("a").status(), Fails(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));
  creation = Creation("b");
  creation.name = "name of a";
  ASSERT_TRUE(Put(*store_, creation).ok());
  const StoredSession session = Load("b");
  EXPECT_TRUE(session.current.empty() && session.snapshots.empty() && session.collected.empty());
  const StoredMemory memory = LoadMemory("b");
  EXPECT_TRUE(memory.kept.empty() && memory.requests.empty());
  EXPECT_THAT(Put(*store_, Change("a", 1, 3)), Fails(kUnavailable, ErrorReason::kStoreRefused));
}

TEST_F(SqliteStoreTest, SessionsAreListedByName) {
  for (const char* uid : {"c", "a", "b"}) ASSERT_TRUE(Put(*store_, Creation(uid)).ok());
  const auto heads = store_->ListSessions();
  ASSERT_TRUE(heads.ok() && heads->size() == 3);
  EXPECT_EQ((*heads)[0].uid, "a");
  EXPECT_EQ((*heads)[2].uid, "c");
}

TEST_F(SqliteStoreTest, OpeningRaisesEveryEpochAndTheOldOneIsRefused) {
  ASSERT_TRUE(Put(*store_, Creation("a")).ok());
  Reopen();
  EXPECT_EQ(Load("a").head.epoch, 2);
  EXPECT_EQ(store_->ListSessions()->front().epoch, 2);
  EXPECT_THAT(Put(*store_, Change("a", 1, 2)), Fails(kPrecondition, ErrorReason::kNotOwner));
  EXPECT_THAT(Put(*store_, Deletion("a", 1, 2)), Fails(kPrecondition, ErrorReason::kNotOwner));
  EXPECT_THAT(Put(*store_, Change("a", 3, 2)), Fails(kPrecondition, ErrorReason::kNotOwner));
  EXPECT_EQ(Load("a").head.sequence, 1);
  EXPECT_TRUE(Put(*store_, Change("a", 2, 2)).ok());
}

TEST_F(SqliteStoreTest, AWriteThatDoesNotFollowIsRefused) {
  ASSERT_TRUE(Put(*store_, Creation("a")).ok());
  for (const int64_t sequence : {0, 1, 3}) {
    EXPECT_THAT(Put(*store_, Change("a", 1, sequence)), Fails(kUnavailable, ErrorReason::kStoreRefused));
    EXPECT_THAT(Put(*store_, Deletion("a", 1, sequence)), Fails(kUnavailable, ErrorReason::kStoreRefused));
  }
  EXPECT_TRUE(Put(*store_, Change("a", 1, 2)).ok());
}

TEST_F(SqliteStoreTest, ATakenNameUidOrSnapshotIsRefused) {
  ASSERT_TRUE(Put(*store_, Creation("a")).ok());
  SessionWrite creation = Creation("b");
  creation.name = "name of a";
  EXPECT_THAT(Put(*store_, creation), Fails(kUnavailable, ErrorReason::kStoreRefused));
  creation = Creation("a");
  creation.name = "another";
  EXPECT_THAT(Put(*store_, creation), Fails(kUnavailable, ErrorReason::kStoreRefused));
  SessionWrite change = Change("a", 1, 2);
  change.snapshot = StoredSnapshot{"s", "1"};
  ASSERT_TRUE(Put(*store_, change).ok());
  change.sequence = 3;
  EXPECT_THAT(Put(*store_, change), Fails(kUnavailable, ErrorReason::kStoreRefused));
  EXPECT_EQ(Load("a").head.sequence, 2);
}

TEST_F(SqliteStoreTest, ARefusedWriteTakesNoOtherOfItsTransactionWithIt) {
  ASSERT_TRUE(Put(*store_, Creation("a")).ok());
  std::vector<std::future<absl::Status>> answers;
  QueueTogether([&] {
    const auto start = [&](SessionWrite write) {
      answers.push_back(StartWrite(*store_, StoreWrite{.sessions = {std::move(write)}}));
    };
    start(Change("a", 1, 2));
    start(Change("a", 9, 3));  // another owner's
    start(Change("a", 1, 5));  // does not follow
    start(Creation("a"));      // taken
    start(Change("a", 1, 3));
    start(Creation("b"));
  });
  std::vector<bool> made;
  for (auto& answer : answers) made.push_back(answer.get().ok());
  EXPECT_THAT(made, ElementsAre(true, false, false, false, true, true));
  EXPECT_EQ(Load("a").head.record, "head of a at 3");
  EXPECT_EQ(Load("b").head.sequence, 1);
}

TEST_F(SqliteStoreTest, AWriteOfSeveralSessionsIsMadeWholeOrNotAtAll) {
  ASSERT_TRUE(Put(*store_, Creation("a")).ok());
  ASSERT_TRUE(Put(*store_, Creation("b")).ok());
  SessionWrite first = Change("a", 1, 2);
  first.current = {{VectorKind::kRunning, 2, "r"}};
  StoreWrite both{.sessions = {first, Change("b", 1, 9)}, .server_request = StoredRequest{1, 1, "id", "answer"}};
  EXPECT_THAT(Put(*store_, both), Fails(kUnavailable, ErrorReason::kStoreRefused));
  EXPECT_EQ(Load("a").head.sequence, 1);
  EXPECT_TRUE(Load("a").current.empty());
  EXPECT_TRUE(store_->ListServerRequests()->empty());
  both.sessions[1].sequence = 2;
  EXPECT_TRUE(Put(*store_, both).ok());
  EXPECT_EQ(Load("b").head.sequence, 2);
}

TEST_F(SqliteStoreTest, WritesOfOneDurabilityAreAnsweredInTheirOrder) {
  for (const Durability durability : {Durability::kCommit, Durability::kFlush}) {
    std::vector<int> order;
    std::latch answered(60);
    for (int i = 0; i < 60; ++i) {
      StoreWrite write{.durability = durability};
      // Every third is refused, and must not overtake those that wait for a sync.
      write.sessions.push_back(i % 3 == 2 ? Change("nobody", 1, 1)
                                          : Creation(absl::StrCat("u", i, "-", static_cast<int>(durability))));
      store_->Write(std::move(write), [&, i](absl::Status status) {
        EXPECT_EQ(status.ok(), i % 3 != 2) << status;
        order.push_back(i);
        answered.count_down();
      });
    }
    answered.wait();
    for (int i = 0; i < 60; ++i) EXPECT_EQ(order[i], i);
  }
}

TEST_F(SqliteStoreTest, ALoadedSessionIsThatOfOneMoment) {
  const auto change = [](int64_t sequence) {
    SessionWrite write = sequence == 1 ? Creation("a") : Change("a", 1, sequence);
    write.current = {{VectorKind::kParameters, sequence, Pattern("p", 9000)}, {VectorKind::kRunning, sequence, "r"}};
    write.request = StoredRequest{0, sequence, "id", "answer"};
    return write;
  };
  ASSERT_TRUE(Put(*store_, change(1)).ok());
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (int64_t sequence = 2; !stop; ++sequence) EXPECT_TRUE(Put(*store_, change(sequence)).ok());
  });
  for (int i = 0; i < 500; ++i) {
    const StoredSession session = Load("a");
    ASSERT_EQ(session.current.size(), 2u);
    EXPECT_EQ(session.current[0].version, session.head.sequence);
    EXPECT_EQ(session.current[1].version, session.head.sequence);
    EXPECT_GE(LoadMemory("a").requests[0].sequence, session.head.sequence);
  }
  stop = true;
  writer.join();
}

TEST_F(SqliteStoreTest, TheJournalStaysBoundedUnderConstantWrites) {
  constexpr int64_t kCheckpointBytes = 256 << 10;
  store_ = nullptr;
  auto opened = SqliteStore::Open({.directory = directory_.path(), .checkpoint_bytes = kCheckpointBytes});
  ASSERT_TRUE(opened.ok()) << opened.status();
  store_ = *std::move(opened);
  ASSERT_TRUE(Put(*store_, Creation("a")).ok());
  // Always some in the queue, so that the writer never rests: 40 MB in all.
  constexpr int kWrites = 2000;
  std::atomic<int> in_work = 0;
  std::uintmax_t most_bytes = 0;
  for (int i = 0; i < kWrites; ++i) {
    StoreWrite write;
    write.sessions.push_back(Change("a", 1, i + 2));
    write.sessions[0].current = {{VectorKind::kRunning, i, Pattern(absl::StrCat(i), 16000)}};
    ++in_work;
    store_->Write(std::move(write), [&in_work](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      --in_work;
      in_work.notify_all();
    });
    for (int now = in_work; now > 8; now = in_work) in_work.wait(now);
    most_bytes = std::max(most_bytes, std::filesystem::file_size(directory_.file("normserve.db-wal")));
  }
  EXPECT_LT(most_bytes, 4 * kCheckpointBytes + 10 * 20000);
  EXPECT_GE(most_bytes, kCheckpointBytes);
  Reopen();
  EXPECT_EQ(Load("a").head.sequence, kWrites + 1);
}

TEST_F(SqliteStoreTest, CloseFinishesWhatIsQueuedAndRefusesWhatComesLater) {
  std::vector<std::future<absl::Status>> answers;
  QueueTogether([&] {
    for (int i = 0; i < 20; ++i) {
      StoreWrite write{.durability = i % 2 == 0 ? Durability::kCommit : Durability::kFlush};
      write.sessions.push_back(Creation(absl::StrCat("u", i)));
      answers.push_back(StartWrite(*store_, std::move(write)));
    }
  });
  store_->Close();
  for (auto& answer : answers) EXPECT_TRUE(answer.get().ok());
  EXPECT_THAT(Put(*store_, Creation("late")), Fails(kUnavailable, ErrorReason::kStoreRefused));
  EXPECT_THAT(Put(*store_, Creation("late"), Durability::kFlush), Fails(kUnavailable, ErrorReason::kStoreRefused));
  EXPECT_THAT(store_->ListSessions().status(), Fails(kUnavailable, ErrorReason::kStoreRefused));
  store_->Close();
  EXPECT_EQ(directory_.Contents().count("normserve.db-wal"), 0u) << "not checkpointed";
  // The directory is free although the object is still there.
  auto other = SqliteStore::Open({.directory = directory_.path()});
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ((*other)->ListSessions()->size(), 20u);
}

TEST_F(SqliteStoreTest, WhatAKilledServerLeftIsServedAndWritten) {
  // Its journal has some MB.
  SessionWrite creation = Creation("a");
  creation.current = {{VectorKind::kRunning, 1, Pattern("r", 3 << 20)}};
  ASSERT_TRUE(Put(*store_, creation).ok());
  ScratchDirectory copy;
  for (const char* name : {"normserve.db", "normserve.db-wal", "normserve.lock"})
    copy.Write(name, directory_.Read(name));
  ASSERT_GT(copy.Read("normserve.db-wal").size(), 3u << 20);
  auto other = SqliteStore::Open({.directory = copy.path()});
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ((*other)->Load("a")->current[0].data, Pattern("r", 3 << 20));
  const absl::Status status = Put(**other, Change("a", 2, 2), Durability::kFlush);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(copy.Read("normserve.lock"), HasSubstr(absl::StrCat(getpid())));
}

}  // namespace
}  // namespace normserve
