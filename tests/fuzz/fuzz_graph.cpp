#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "pycnn/error.h"
#include "pycnn/graph.h"

// A text that is accepted prints as itself. Small ones are specialised, differentiated, too: both
// take any graph or refuse it by an error of their own.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const pycnn::Graph graph = pycnn::Graph::parse(text);
    if (graph.text() != text) std::abort();
    pycnn::Graph training = pycnn::specialize(graph, pycnn::Mode::kTraining);
    (void)pycnn::specialize(graph, pycnn::Mode::kInference);
    if (training.outputs().empty() || training.nodes().empty()) return 0;
    const pycnn::Symbol wrt[] = {training.find(training.nodes()[0].name)};
    (void)pycnn::differentiate(training, training.outputs()[0].second, wrt);
  } catch (const pycnn::InternalError&) {
    std::abort();
  } catch (const pycnn::Error&) {
  }
  return 0;
}
