#include "c/handles.h"
#include "pycnn/network.h"
#include "pycnn/version.h"

namespace {

using namespace pycnn::c;
using pycnn::Model;
using pycnn::NodeKind;
using NamedSpecs = std::vector<std::pair<std::string, pycnn::TensorSpec>>;

template <class Work>
std::vector<std::string> names_or_error(std::exception_ptr& error, const Work& work) {
  try {
    return work();
  } catch (const pycnn::Error&) {
    error = std::current_exception();
    return {};
  }
}

pycnn_model* make_handle(Model model) {
  auto handle = std::make_unique<pycnn_model>();
  handle->model = std::move(model);
  const pycnn::Graph& graph = handle->model.graph;
  for (const pycnn::Node& node : graph.nodes())
    if (node.kind == NodeKind::kInput) handle->inputs.emplace_back(node.name, node.outputs[0]);
  for (const auto& [name, symbol] : graph.outputs())
    handle->outputs.emplace_back(name, graph.spec(symbol));
  handle->class_names =
      names_or_error(handle->class_names_error, [&] { return pycnn::class_names(handle->model); });
  handle->head_names =
      names_or_error(handle->head_names_error, [&] { return pycnn::head_names(handle->model); });
  return handle.release();
}

pycnn_status tell_count(const pycnn_model* model, const char* who, std::size_t* count,
                        const NamedSpecs pycnn_model::*specs) noexcept {
  return guarded([&] {
    require(model, who, "model");
    require(count, who, "count");
    *count = (model->*specs).size();
  });
}

pycnn_status tell_spec(const pycnn_model* model, const char* who, std::size_t index,
                       pycnn_array_info* info, const NamedSpecs pycnn_model::*specs) noexcept {
  return guarded([&] {
    require(model, who, "model");
    require(info, who, "info");
    require_index(index, (model->*specs).size(), who, "index");
    const auto& [name, spec] = (model->*specs)[index];
    *info = describe(name, spec);
  });
}

// Of names that the handle has or why it has not.
struct Names {
  const std::vector<std::string> pycnn_model::*names;
  const std::exception_ptr pycnn_model::*error;
};
constexpr Names kClasses = {&pycnn_model::class_names, &pycnn_model::class_names_error};
constexpr Names kHead = {&pycnn_model::head_names, &pycnn_model::head_names_error};

const std::vector<std::string>& names_of(const pycnn_model* model, const char* who,
                                         const Names& which) {
  require(model, who, "model");
  if (model->*(which.error)) std::rethrow_exception(model->*(which.error));
  return model->*(which.names);
}

pycnn_status tell_count(const pycnn_model* model, const char* who, std::size_t* count,
                        const Names& which) noexcept {
  return guarded([&] {
    const std::vector<std::string>& names = names_of(model, who, which);
    require(count, who, "count");
    *count = names.size();
  });
}

pycnn_status tell_name(const pycnn_model* model, const char* who, std::size_t index,
                       const char** name, const Names& which) noexcept {
  return guarded([&] {
    const std::vector<std::string>& names = names_of(model, who, which);
    require(name, who, "name");
    require_index(index, names.size(), who, "index");
    *name = to_c_text(names[index], who);
  });
}

}  // namespace

const char* pycnn_version(void) { return pycnn::version(); }
int32_t pycnn_c_abi_version(void) { return PYCNN_C_ABI_VERSION; }

pycnn_status pycnn_model_load(const char* path, pycnn_model** model) {
  return guarded([&] {
    require(path, "pycnn_model_load", "path");
    require(model, "pycnn_model_load", "model");
    *model = make_handle(pycnn::load_model(path));
  });
}

pycnn_status pycnn_model_load_memory(const void* data, size_t bytes, pycnn_model** model) {
  return guarded([&] {
    require(data, "pycnn_model_load_memory", "data");
    require(model, "pycnn_model_load_memory", "model");
    *model =
        make_handle(pycnn::parse_model({static_cast<const std::byte*>(data), bytes}, "memory"));
  });
}

pycnn_status pycnn_model_save(const pycnn_model* model, const char* path) {
  return guarded([&] {
    require(model, "pycnn_model_save", "model");
    require(path, "pycnn_model_save", "path");
    pycnn::save_model(path, pycnn::without_training_state(model->model));
  });
}

void pycnn_model_free(pycnn_model* model) { delete model; }

pycnn_status pycnn_model_input_count(const pycnn_model* model, size_t* count) {
  return tell_count(model, "pycnn_model_input_count", count, &pycnn_model::inputs);
}

pycnn_status pycnn_model_input(const pycnn_model* model, size_t index, pycnn_array_info* info) {
  return tell_spec(model, "pycnn_model_input", index, info, &pycnn_model::inputs);
}

pycnn_status pycnn_model_output_count(const pycnn_model* model, size_t* count) {
  return tell_count(model, "pycnn_model_output_count", count, &pycnn_model::outputs);
}

pycnn_status pycnn_model_output(const pycnn_model* model, size_t index, pycnn_array_info* info) {
  return tell_spec(model, "pycnn_model_output", index, info, &pycnn_model::outputs);
}

pycnn_status pycnn_model_metadata(const pycnn_model* model, const char* key, const char** text) {
  return guarded([&] {
    require(model, "pycnn_model_metadata", "model");
    require(key, "pycnn_model_metadata", "key");
    require(text, "pycnn_model_metadata", "text");
    const auto found = model->model.metadata.find(key);
    *text = found == model->model.metadata.end() ? nullptr
                                                 : to_c_text(found->second, "pycnn_model_metadata");
  });
}

pycnn_status pycnn_model_class_count(const pycnn_model* model, size_t* count) {
  return tell_count(model, "pycnn_model_class_count", count, kClasses);
}

pycnn_status pycnn_model_class_name(const pycnn_model* model, size_t index, const char** name) {
  return tell_name(model, "pycnn_model_class_name", index, name, kClasses);
}

pycnn_status pycnn_model_replace_head(const pycnn_model* model, int64_t num_classes, uint64_t seed,
                                      pycnn_model** result) {
  return guarded([&] {
    require(model, "pycnn_model_replace_head", "model");
    require(result, "pycnn_model_replace_head", "result");
    *result = make_handle(pycnn::replace_head(model->model, num_classes, seed));
  });
}

pycnn_status pycnn_model_head_count(const pycnn_model* model, size_t* count) {
  return tell_count(model, "pycnn_model_head_count", count, kHead);
}

pycnn_status pycnn_model_head_name(const pycnn_model* model, size_t index, const char** name) {
  return tell_name(model, "pycnn_model_head_name", index, name, kHead);
}
