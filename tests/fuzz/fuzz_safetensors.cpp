#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>

#include "pycnn/checkpoint.h"
#include "pycnn/error.h"

// Whatever is accepted must survive writing and reading again. The first eight bytes of a file are
// the length of its header, which is hard to guess: it is put in front here, unless the input
// begins with a byte of 0xFF, which stands for a file as it is.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string file;
  if (size > 0 && data[0] == 0xFF) {
    file.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  } else {
    const std::string text(reinterpret_cast<const char*>(data), size);
    // Zeros after the last brace are the data.
    const std::size_t end = text.rfind('}');
    const std::uint64_t length = end == std::string::npos ? size : end + 1;
    file.resize(8);
    std::memcpy(file.data(), &length, 8);
    file += text;
  }
  try {
    const pycnn::Checkpoint read =
        pycnn::parse_checkpoint(std::as_bytes(std::span(file.data(), file.size())), "fuzz");
    const auto bytes = pycnn::serialize_checkpoint(read);
    const pycnn::Checkpoint again = pycnn::parse_checkpoint(bytes, "again");
    if (again.tensors.size() != read.tensors.size() || again.metadata != read.metadata)
      std::abort();
  } catch (const pycnn::FormatError&) {
  }
  return 0;
}
