// A journal with a damaged place: what is read of it, and that nobody has to guess what became of the rest.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "server/store/journal_file.h"
#include "server/store/sqlite_store.h"
#include "tests/unit/server/status_matchers.h"
#include "tests/unit/store/scratch_directory.h"
#include "tests/unit/store/store_calls.h"

namespace normserve {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kChanges = 50;

class DamagedJournalTest : public testing::Test {
 protected:
  // What a server that is killed leaves behind: fifty changes of a session in the journal.
  void SetUp() override { LeaveBehind(16 << 20, kChanges); }

  void LeaveBehind(int64_t checkpoint_bytes, int64_t changes) {
    ScratchDirectory served;
    auto store = SqliteStore::Open({.directory = served.path(), .checkpoint_bytes = checkpoint_bytes});
    ASSERT_TRUE(store.ok()) << store.status();
    ASSERT_TRUE(Put(**store, Creation("a")).ok());
    for (int64_t sequence = 2; sequence <= changes + 1; ++sequence) {
      ASSERT_TRUE(Put(**store, Change("a", 1, sequence)).ok());
    }
    for (const char* name : {"normserve.db", "normserve.db-wal"}) directory_.Write(name, served.Read(name));
  }

  void Spoil(size_t at) {
    std::string bytes = directory_.Read("normserve.db-wal");
    ASSERT_LT(at, bytes.size());
    bytes[at] ^= 1;
    directory_.Write("normserve.db-wal", bytes);
  }

  JournalExtent Measure() {
    auto file = JournalFile::Open(directory_.file("normserve.db-wal"), "");
    EXPECT_TRUE(file.ok()) << file.status();
    return *file->Measure();
  }

  // Opens the store: its session's newest sequence number.
  int64_t Start() {
    warnings_.clear();
    auto store = SqliteStore::Open(
        {.directory = directory_.path(), .warn = [this](const std::string& what) { warnings_.push_back(what); }});
    EXPECT_TRUE(store.ok()) << store.status();
    const auto session = (*store)->Load("a");
    if (!session.ok()) return 0;
    EXPECT_TRUE(Put(**store, Change("a", session->head.epoch, session->head.sequence + 1)).ok()) << "it goes on";
    return session->head.sequence;
  }

  ScratchDirectory directory_;
  std::vector<std::string> warnings_;
};

TEST_F(DamagedJournalTest, AWholeOneSaysNothing) {
  const JournalExtent extent = Measure();
  EXPECT_TRUE(extent.has_header);
  EXPECT_GT(extent.sound_frames, kChanges);
  EXPECT_EQ(extent.frames_behind, 0);
  EXPECT_EQ(Start(), kChanges + 1);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(DamagedJournalTest, AnEndThatIsCutOffSaysNothing) {
  const std::string bytes = directory_.Read("normserve.db-wal");
  directory_.Write("normserve.db-wal", bytes.substr(0, bytes.size() - 1000));
  EXPECT_TRUE(Measure().is_whole());
  EXPECT_LE(Start(), kChanges);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(DamagedJournalTest, WhatAnEarlierUseOfTheFileLeftSaysNothing) {
  LeaveBehind(40'000, 103);
  EXPECT_TRUE(Measure().is_whole());
  EXPECT_EQ(Start(), 104);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(DamagedJournalTest, FramesBehindADamagedOneAreLostWithAWordAndACopy) {
  const int64_t frames = Measure().sound_frames;
  const std::string whole = directory_.Read("normserve.db-wal");
  Spoil(whole.size() / 2);
  const std::string spoilt = directory_.Read("normserve.db-wal");
  const JournalExtent extent = Measure();
  EXPECT_EQ(extent.sound_frames + extent.frames_behind, frames);
  EXPECT_GT(extent.frames_behind, frames / 3);

  const int64_t sequence = Start();
  EXPECT_GT(sequence, kChanges / 4);
  EXPECT_LT(sequence, kChanges * 3 / 4);
  EXPECT_THAT(warnings_,
              ElementsAre(AllOf(HasSubstr(directory_.file("normserve.db-wal")), HasSubstr("damaged behind frame"),
                                HasSubstr("is lost"), HasSubstr("kept as"))));
  EXPECT_EQ(directory_.Read("normserve.db-wal.damaged"), spoilt);
  EXPECT_EQ(Start(), sequence + 1);
  EXPECT_THAT(warnings_, IsEmpty()) << "once";
}

TEST_F(DamagedJournalTest, ADamagedHeaderLosesAllWithAWordAndACopy) {
  Spoil(17);
  EXPECT_FALSE(Measure().has_header);
  Start();
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("damaged from its beginning")));
  EXPECT_TRUE(std::filesystem::exists(directory_.file("normserve.db-wal.damaged")));
}

TEST_F(DamagedJournalTest, OneWithoutItsFileIsRefusedAndStays) {
  for (const bool is_empty : {true, false}) {
    std::filesystem::remove(directory_.file("normserve.db"));
    if (is_empty) directory_.Write("normserve.db", "");
    const auto before = directory_.Read("normserve.db-wal");
    const auto opened = SqliteStore::Open({.directory = directory_.path()});
    EXPECT_THAT(opened.status(), Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kStoreRefused));
    EXPECT_THAT(std::string(opened.status().message()),
                AllOf(HasSubstr("is missing or empty"), HasSubstr("normserve.db-wal is there")));
    EXPECT_EQ(directory_.Read("normserve.db-wal"), before);
  }
}

}  // namespace
}  // namespace normserve
