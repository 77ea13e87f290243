// normctl import and export.
#include <memory>

#include "client/cli/checkpoint_commands.h"
#include "client/cli/command_syntax.h"

namespace normserve::cli {
namespace {

void AddImport(CLI::App& app, Invocation& invocation) {
  CLI::App* import = AddCommand(
      app, "import", "Makes sessions in EVAL mode of a safetensors checkpoint's batch-norm layers, all or none.",
      "normctl import resnet50/ resnet50.safetensors --existing replace");
  const auto options = std::make_shared<ImportCommandOptions>();
  ImportCommandOptions& i = *options;
  import->add_option("name", i.name, "a model, ending in '/'; or a session, for a file of one layer")
      ->required()
      ->type_name("NAME");
  import->add_option("file", i.file, "a safetensors file")->required()->type_name("FILE");
  import->add_option("--prefix", i.prefix, "only layers below it, such as backbone")->type_name("PATH");
  import->add_option("--existing", i.existing, "sessions that are there: refuse (default), replace or skip")
      ->check(CLI::IsMember({"refuse", "replace", "skip"}));
  import->add_option("--mode", i.create.mode, "train, eval (default) or shadow")->check(IsMode());
  import->add_option("--epsilon", i.create.epsilon, "which is not in the file; default 1e-5")->type_name("E");
  import->add_option("--momentum", i.create.momentum, "which is not in the file; default 0.1")->type_name("M");
  import->add_option("--convention", i.create.convention, "of the sessions; default pytorch")->check(IsConvention());
  import->add_option("--durability", i.create.durability, "none, commit or flush; as create")->check(IsDurability());
  AddLabels(import, i.create.labels, "a word of yours about them; may be repeated");
  import->add_option("--kept-by", i.kept_by, "the convention of the file's statistics; default: the sessions'")
      ->check(IsConvention());
  import
      ->add_option("--values-per-channel", i.values_per_channel,
                   "of every batch that they were kept from, to convert the running variance")
      ->type_name("N");
  SetRun(import, invocation, [options](const CommandLine& line) { return Import(line, *options); });
}

void AddExport(CLI::App& app, Invocation& invocation) {
  CLI::App* out = AddCommand(app, "export", "Writes sessions as a safetensors file under PyTorch's names.",
                             "normctl export resnet50/ -o bn.safetensors\n         normctl export resnet50/ --into "
                             "resnet50.safetensors -o new.safetensors");
  const auto options = std::make_shared<ExportCommandOptions>();
  ExportCommandOptions& e = *options;
  AddNamed(out, e.name);
  out->add_option("-o,--output", e.output, "the file to write")->required()->type_name("FILE");
  out->add_option("--into", e.into, "a checkpoint whose other tensors the file has too")->type_name("FILE");
  out->add_option("--prefix", e.prefix, "put before every tensor's name, with a '.'")->type_name("PATH");
  out->add_option("--convention", e.convention, "by which the file keeps the variance; default: as it is")
      ->check(IsConvention());
  out->add_flag("--folded", e.folded, "scale and shift of each layer instead of it")->excludes("--into");
  out->add_option("--values-per-channel", e.values_per_channel, "of every batch, to convert the running variance")
      ->type_name("N");
  SetRun(out, invocation, [options](const CommandLine& line) { return Export(line, *options); });
}

}  // namespace

void AddCheckpointCommands(CLI::App& app, Invocation& invocation) {
  AddImport(app, invocation);
  AddExport(app, invocation);
}

}  // namespace normserve::cli
