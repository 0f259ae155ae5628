#include <doctest/doctest.h>

#include "compile/passes.h"

namespace pycnn {
namespace {

const std::string kHead = R"(pycnn.graph 1
input "x" = f32(2, 4, 4, 3)
input "z" = f32(2, 4, 4, 3)
parameter "m" = f32(3)
parameter "f" = f32(3)
parameter "o" = f32(3)
)";
const std::string kOutput = "output \"y\" = \"sum\"\n";

std::string plain(const std::string& name, const std::string& activation) {
  return "\"" + name + R"(" = batch_norm_apply("z", "f", "o", "m") {epilogue=(false, )" +
         activation + ", 0.01)} -> f32(2, 4, 4, 3)\n";
}
std::string adding(const std::string& residual) {
  return R"("sum" = batch_norm_apply("x", "m", "f", "o", )" + residual +
         ") {epilogue=(true, relu, 0.01)} -> f32(2, 4, 4, 3)\n";
}
const std::string kFused = adding(R"("z", "f", "o", "m")");

std::string passed(const std::string& body, const std::map<std::string, std::string>& pins = {}) {
  const std::string text = fuse_residual_norm(Graph::parse(kHead + body), pins).text();
  CHECK(Graph::parse(text).text() == text);
  return text.substr(kHead.size());
}

TEST_CASE("a batch norm applies the one that makes its residual") {
  CHECK(passed(plain("p", "identity") + adding("\"p\"") + kOutput) == kFused + kOutput);
}

TEST_CASE("a residual that is activated, read by another or asked for stays a step of its own") {
  for (const std::string& body :
       {plain("p", "relu") + adding("\"p\"") + kOutput,
        plain("p", "identity") + adding("\"p\"") + kOutput + "output \"also\" = \"p\"\n",
        plain("p", "identity") + adding("\"p\"") +
            "\"twice\" = add(\"p\", \"sum\") -> f32(2, 4, 4, 3)\noutput \"y\" = \"twice\"\n",
        adding("\"z\"") + kOutput})
    CHECK(passed(body) == body);
  const std::string body = plain("p", "identity") + adding("\"p\"") + kOutput;
  for (const std::string pin : {"p", "sum", "batch_norm_apply", "*"})
    CHECK(passed(body, {{pin, "some.kernel"}}) == body);
}

TEST_CASE("of a chain of sums each takes what makes its residual") {
  // The one that "sum" would take has taken one itself.
  const std::string chain =
      plain("p", "identity") +
      R"("q" = batch_norm_apply("x", "m", "f", "o", "p") {epilogue=(true, identity, 0.01)} -> f32(2, 4, 4, 3)
)" + adding("\"q\"") +
      kOutput;
  CHECK(
      passed(chain) ==
      R"("q" = batch_norm_apply("x", "m", "f", "o", "z", "f", "o", "m") {epilogue=(true, identity, 0.01)} -> f32(2, 4, 4, 3)
)" + adding("\"q\"") +
          kOutput);
}

}  // namespace
}  // namespace pycnn
