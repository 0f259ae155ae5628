// What model files hold beside the network: metadata that Python writes as JSON, training state.
#include "core/json.h"
#include "core/training_state.h"
#include "pycnn/error.h"
#include "pycnn/network.h"

namespace pycnn {
namespace {

constexpr const char* kClassNames = "class_names";
constexpr const char* kTrainer = "trainer";
constexpr const char* kAuxiliary = "pycnn.auxiliary";

std::string where(const char* key) { return std::string("metadata '") + key + "'"; }

AuxiliaryHead read_head(JsonReader& reader) {
  AuxiliaryHead head;
  bool has_node = false, has_weight = false;
  reader.begin_object();
  std::string field;
  while (reader.next_key(field)) {
    if (field == "node") {
      head.node = reader.read_string();
      has_node = true;
    } else if (field == "weight") {
      head.weight = reader.read_double();
      has_weight = true;
    } else {
      reader.fail("unknown field '" + field.substr(0, 64) + "'");
    }
  }
  if (!has_node || !has_weight) reader.fail("a head needs 'node' and 'weight'");
  if (!(head.weight >= 0.0)) reader.fail("the weight of '" + head.node + "' is negative");
  return head;
}

}  // namespace

Model without_training_state(Model model) {
  std::erase_if(model.variables,
                [](const auto& variable) { return is_training_state(variable.first); });
  model.metadata.erase(kTrainer);
  return model;
}

std::vector<std::string> class_names(const Model& model) {
  const auto entry = model.metadata.find(kClassNames);
  if (entry == model.metadata.end()) return {};
  std::vector<std::string> names;
  JsonReader reader(entry->second, where(kClassNames));
  reader.begin_array();
  while (reader.next_item()) names.push_back(reader.read_string());
  reader.end();
  return names;
}

std::vector<AuxiliaryHead> auxiliary_heads(const Model& model) {
  const auto entry = model.metadata.find(kAuxiliary);
  if (entry == model.metadata.end()) return {};
  std::vector<AuxiliaryHead> heads;
  JsonReader reader(entry->second, where(kAuxiliary));
  reader.begin_array();
  while (reader.next_item()) {
    AuxiliaryHead head = read_head(reader);
    if (!model.graph.contains(head.node) ||
        model.graph.node(model.graph.find(head.node)).kind != NodeKind::kOp)
      throw FormatError(where(kAuxiliary) + ": the graph has no node '" + head.node.substr(0, 120) +
                        "'");
    heads.push_back(std::move(head));
  }
  reader.end();
  return heads;
}

}  // namespace pycnn
