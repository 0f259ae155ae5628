#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "pycnn/error.h"

// Reads any value, skipping through what it holds as its types say.
namespace {

void read_value(pycnn::JsonReader& reader) {
  using Type = pycnn::JsonReader::Type;
  // One entry a level: whether it is an object.
  std::vector<bool> levels;
  std::string key;
  do {
    switch (reader.peek()) {
      case Type::kObject:
        reader.begin_object();
        levels.push_back(true);
        break;
      case Type::kArray:
        reader.begin_array();
        levels.push_back(false);
        break;
      case Type::kString: {
        std::string text;
        pycnn::append_json_string(text, reader.read_string());
        break;
      }
      case Type::kNumber:
        (void)reader.read_int64();
        break;
      case Type::kBoolean:
        (void)reader.read_boolean();
        break;
      case Type::kNull:
        reader.read_null();
        break;
    }
    while (!levels.empty() && !(levels.back() ? reader.next_key(key) : reader.next_item()))
      levels.pop_back();
  } while (!levels.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    pycnn::JsonReader reader(std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    read_value(reader);
    reader.end();
  } catch (const pycnn::FormatError&) {
  }
  return 0;
}
