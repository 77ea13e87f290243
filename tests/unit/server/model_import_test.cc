// Imports of a checkpoint's layers: opened or replaced together, or not at all, and once.
#include "server/session/model_import.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/session/layer_name.h"
#include "tests/unit/server/answers.h"
#include "tests/unit/server/status_matchers.h"
#include "tests/unit/server/stored_session_fixture.h"

namespace normserve {
namespace {

using Imported = std::vector<ImportedSession>;
using testing::ElementsAre;
using testing::HasSubstr;

const auto kRefused = Fails(absl::StatusCode::kUnavailable, ErrorReason::kStoreRefused);

ImportedLayer Layer(const std::string& name, double mean) {
  return {.name = name,
          .parameters = {.weight = {2, 3}, .bias = {4, 5}},
          .statistics = {.mean = {mean, -mean}, .variance = {1, 2}},
          .num_batches_tracked = 6};
}

class ModelImportTest : public StoredSessionTest {
 protected:
  static ImportDraft Draft(double mean, ExistingSession existing = ExistingSession::kRefuse,
                           const std::string& request_id = "") {
    return {.name = "net/",
            .request_id = request_id,
            .existing = existing,
            .layers = {Layer("net/a", mean), Layer("net/b", mean), Layer("net/c", mean)}};
  }

  absl::StatusOr<Imported> Import(ImportDraft draft) {
    return AnswerOf<Imported>(
        [&](auto answered) { ModelImport::Start(*registry_, std::move(draft), std::move(answered)); });
  }

  std::vector<double> Means() {
    std::vector<double> means;
    for (const char* name : {"net/a", "net/b", "net/c"}) {
      const auto found = registry_->Find(name);
      means.push_back(found.ok() ? (*found)->Snapshot()->running->mean[0] : 0);
    }
    return means;
  }
};

TEST_F(ModelImportTest, LayersAreOneWriteAndFoundOnceItIsStored) {
  held_->Hold();
  Promise<Imported> imported;
  ModelImport::Start(*registry_, Draft(7), imported.Callback());
  EXPECT_EQ(held_->num_held(), 1u);
  EXPECT_THAT(Means(), ElementsAre(0, 0, 0));
  held_->PassOne();
  ASSERT_TRUE(imported.is_there());
  ASSERT_EQ((*imported)->size(), 3u);
  for (int restart = 0; restart < 2; ++restart) {
    EXPECT_THAT(Means(), ElementsAre(7, 7, 7));
    const auto state = Get("net/b")->Snapshot();
    EXPECT_EQ(state->mode, Mode::kEval);
    EXPECT_EQ(state->num_batches_tracked, 6);
    EXPECT_THAT(state->parameters->weight, ElementsAre(2, 3));
    EXPECT_EQ(Get("net/b")->uid(), (**imported)[1].uid);
    Restart();
  }
}

TEST_F(ModelImportTest, ARefusedWriteLeavesNoSessionAndNoBytes) {
  const int64_t before = registry_->GetUsage().state_bytes;
  held_->Hold();
  Promise<Imported> imported, waiting;
  ModelImport::Start(*registry_, Draft(7, ExistingSession::kRefuse, "id"), imported.Callback());
  // A repeat, which waits for what comes of the first and then takes its place.
  ModelImport::Start(*registry_, Draft(7, ExistingSession::kRefuse, "id"), waiting.Callback());
  EXPECT_EQ(held_->num_held(), 1u);
  held_->RefuseOne();
  EXPECT_THAT((*imported).status(), kRefused);
  EXPECT_EQ(held_->num_held(), 1u);
  held_->RefuseOne();
  EXPECT_THAT((*waiting).status(), kRefused);
  held_->PassAll();
  EXPECT_EQ(registry_->GetUsage().num_sessions, 0);
  EXPECT_EQ(registry_->GetUsage().state_bytes, before);
  EXPECT_TRUE(Import(Draft(8, ExistingSession::kRefuse, "id")).ok());
}

TEST_F(ModelImportTest, OpenedAndReplacedSessionsAreOneWrite) {
  const auto a = Open("net/a");
  ASSERT_TRUE(Train(*a, 3).ok());
  const auto before = a->Snapshot();
  const std::string uid = a->uid();
  held_->Hold();
  Promise<Imported> imported;
  ModelImport::Start(*registry_, Draft(7, ExistingSession::kReplace), imported.Callback());
  EXPECT_EQ(held_->num_held(), 1u);
  EXPECT_EQ(a->Snapshot(), before);
  held_->PassOne();
  ASSERT_TRUE((*imported).ok()) << (*imported).status();
  EXPECT_EQ((**imported)[0].action, ImportAction::kReplaced);
  EXPECT_EQ((**imported)[0].generation, 2);
  EXPECT_EQ((**imported)[1].action, ImportAction::kCreated);
  EXPECT_EQ(a->Snapshot()->lineage, before->lineage + 1);
  held_->PassAll();
  Restart();
  EXPECT_THAT(Means(), ElementsAre(7, 7, 7));
  EXPECT_EQ(Get("net/a")->uid(), uid);
  EXPECT_EQ(Get("net/a")->Snapshot()->generation, 2);
}

TEST_F(ModelImportTest, ARefusedReplacementLeavesAllAsItWas) {
  const auto a = Open("net/a");
  held_->Hold();
  Promise<Imported> imported;
  ModelImport::Start(*registry_, Draft(7, ExistingSession::kReplace), imported.Callback());
  held_->RefuseOne();
  EXPECT_THAT((*imported).status(), kRefused);
  held_->PassAll();
  EXPECT_EQ(a->Snapshot()->generation, 0);
  EXPECT_EQ(registry_->GetUsage().num_sessions, 1);
  EXPECT_TRUE(Import(Draft(8, ExistingSession::kReplace)).ok());
  EXPECT_THAT(Means(), ElementsAre(8, 8, 8));
}

TEST_F(ModelImportTest, ARepeatAnswersAsTheFirstTimeAndChangesNothing) {
  Open("net/a");
  const auto first = Import(Draft(7, ExistingSession::kReplace, "id"));
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(normserve::SetMode(*Get("net/a"), {}, Mode::kTrain).ok());
  ASSERT_TRUE(Delete(*registry_, "net/b", {}).ok());
  for (int restart = 0; restart < 2; ++restart) {
    const auto again = Import(Draft(7, ExistingSession::kReplace, "id"));
    ASSERT_TRUE(again.ok()) << again.status();
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ((*again)[i].uid, (*first)[i].uid);
      EXPECT_EQ((*again)[i].generation, (*first)[i].generation);
      EXPECT_EQ((*again)[i].action, (*first)[i].action);
    }
    EXPECT_EQ(Get("net/a")->Snapshot()->mode, Mode::kTrain);
    EXPECT_FALSE(registry_->Find("net/b").ok());
    EXPECT_THAT(Import(Draft(9, ExistingSession::kReplace, "id")).status(),
                Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
    Restart();
  }
}

TEST_F(ModelImportTest, ARepeatOfAVeryLongImportChangesNothing) {
  ImportDraft draft = Draft(1, ExistingSession::kRefuse, "id");
  draft.layers.clear();
  for (size_t i = 0; i <= kMaxRememberedParts; ++i) draft.layers.push_back(Layer(absl::StrCat("net/", 10'000 + i), 1));
  const auto first = Import(draft);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(Delete(*registry_, "net/10003", {}).ok());
  Restart();
  const auto again = Import(draft);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->size(), first->size() - 1);  // those that are there
  EXPECT_EQ((*again)[0].uid, (*first)[0].uid);
  EXPECT_EQ(registry_->GetUsage().num_sessions, static_cast<int64_t>(first->size()) - 1);
}

TEST_F(ModelImportTest, AnImportWaitsForASessionThatIsBeingOpened) {
  held_->Hold();
  Promise<SessionDescription> opened;
  Promise<Imported> imported;
  registry_->Create({.name = "net/b", .config = {.num_features = 2}}, opened.Callback());
  ModelImport::Start(*registry_, Draft(7), imported.Callback());
  EXPECT_EQ(held_->num_held(), 1u);
  held_->PassOne();
  ASSERT_TRUE(imported.is_there());
  EXPECT_THAT((*imported).status(), Fails(absl::StatusCode::kAlreadyExists, ErrorReason::kSessionExists));
  held_->PassAll();
}

TEST(LayerName, PathsBecomeNamesAndComeBack) {
  const std::string long_path =
      "model.encoder.backbone.stages.3.blocks.11.attention.projection.norm.and.one.more.level.of.modules.bn";
  for (const std::string& path : {std::string("bn1"), std::string("layer1.0.downsample.1"), long_path}) {
    const auto name = SessionNameOfLayer("net/", path);
    ASSERT_TRUE(name.ok()) << name.status();
    EXPECT_EQ(PathOfLayer("net/", *name), path);
  }
  EXPECT_EQ(*SessionNameOfLayer("net/", "layer1.0.bn1"), "net/layer1.0.bn1");
  EXPECT_EQ(*SessionNameOfLayer("net/", long_path),
            "net/model.encoder.backbone.stages.3.blocks.11.attention.projection/norm.and.one.more.level.of.modules.bn");
  EXPECT_EQ(*SessionNameOfLayer("bn", ""), "bn");
  for (const char* bad : {"", "a b", "a/b", "-a"}) EXPECT_FALSE(SessionNameOfLayer("net/", bad).ok()) << bad;
  EXPECT_FALSE(SessionNameOfLayer("net", "a").ok());
}

}  // namespace
}  // namespace normserve
