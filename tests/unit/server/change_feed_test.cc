#include "server/session/change_feed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/time/clock.h"
#include "tests/unit/server/answers.h"
#include "tests/unit/server/stored_session_fixture.h"

namespace normserve {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(ChangeFeed, NamesAreTakenOnceEach) {
  ChangeFeed feed;
  feed.Note("unheard");
  feed.Listen(true);
  for (const char* name : {"b", "a", "b"}) feed.Note(name);
  EXPECT_THAT(feed.Take(absl::InfinitePast(), absl::InfiniteFuture()), ElementsAre("a", "b"));
  EXPECT_THAT(feed.Take(absl::InfinitePast(), absl::Now()), IsEmpty());
  feed.Note("c");
  feed.Listen(false);
  feed.Note("d");
  EXPECT_THAT(feed.Take(absl::InfinitePast(), absl::Now()), IsEmpty());
}

TEST(ChangeFeed, ANoteEndsTheWaitButNotTheQuiet) {
  ChangeFeed feed;
  feed.Listen(true);
  std::thread noting([&] { feed.Note("a"); });
  EXPECT_THAT(feed.Take(absl::InfinitePast(), absl::InfiniteFuture()), ElementsAre("a"));
  noting.join();

  const absl::Time quiet_until = absl::Now() + absl::Milliseconds(50);
  feed.Note("b");
  EXPECT_THAT(feed.Take(quiet_until, absl::InfiniteFuture()), ElementsAre("b"));
  EXPECT_GE(absl::Now(), quiet_until);
}

TEST(ChangeFeed, WakeEndsQuietAndWaitAlike) {
  ChangeFeed feed;
  feed.Wake();
  EXPECT_THAT(feed.Take(absl::InfiniteFuture(), absl::InfiniteFuture()), IsEmpty());
  std::thread waking([&] { feed.Wake(); });
  EXPECT_THAT(feed.Take(absl::InfinitePast(), absl::InfiniteFuture()), IsEmpty());
  waking.join();
}

TEST(ChangeFeed, NothingNotedByManyIsLost) {
  ChangeFeed feed;
  feed.Listen(true);
  constexpr int kThreads = 4, kNames = 2000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kNames; ++i) feed.Note(std::to_string(t * kNames + i));
    });
  }
  std::set<std::string> taken;
  while (taken.size() < kThreads * kNames) taken.merge(feed.Take(absl::InfinitePast(), absl::InfiniteFuture()));
  for (auto& thread : threads) thread.join();
}

class ChangesOfSessions : public StoredSessionTest {
 protected:
  std::set<std::string> Taken() { return registry_->changes().Take(absl::InfinitePast(), absl::Now()); }
};

TEST_F(ChangesOfSessions, AreNotedOnceTheyAreSeenAndNotBefore) {
  registry_->changes().Listen(true);
  auto session = Open("a");
  EXPECT_THAT(Taken(), ElementsAre("a"));
  held_->Hold();
  Promise<SessionDescription> changed;
  session->SetMode({}, Mode::kEval, changed.Callback());
  EXPECT_THAT(Taken(), IsEmpty());
  held_->PassAll();
  EXPECT_THAT(Taken(), ElementsAre("a"));

  held_->Hold();
  Promise<SessionDescription> refused;
  session->SetMode({}, Mode::kTrain, refused.Callback());
  held_->RefuseOne();
  EXPECT_THAT(Taken(), IsEmpty());
  held_->PassAll();
}

TEST_F(ChangesOfSessions, ADeletionIsNotedWhenTheSessionIsNotFoundAnyMore) {
  Open("a");
  registry_->changes().Listen(true);
  held_->Hold();
  Promise<Deletion> deleted;
  registry_->Delete("a", {}, deleted.Callback());
  EXPECT_THAT(Taken(), IsEmpty());
  held_->PassAll();
  EXPECT_THAT(Taken(), ElementsAre("a"));
  EXPECT_FALSE(registry_->Find("a").ok());
}

}  // namespace
}  // namespace normserve
