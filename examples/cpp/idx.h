#pragma once
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

// The format of the MNIST files: big-endian counts, then bytes.
struct IdxImages {
  std::int64_t count = 0, height = 0, width = 0;
  std::vector<std::uint8_t> pixels;
};

inline std::uint32_t read_big_endian(std::ifstream& file, const std::string& path) {
  unsigned char b[4];
  if (!file.read(reinterpret_cast<char*>(b), 4))
    throw std::runtime_error(path + ": ends inside its header");
  return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 | b[3];
}

inline std::vector<std::uint8_t> read_rest(std::ifstream& file, const std::string& path,
                                           std::uint64_t count) {
  const auto start = file.tellg();
  file.seekg(0, std::ios::end);
  const auto left = static_cast<std::uint64_t>(file.tellg() - start);
  if (left != count)
    throw std::runtime_error(path + ": " + std::to_string(left) + " bytes of data, expected " +
                             std::to_string(count));
  file.seekg(start);
  std::vector<std::uint8_t> bytes(count);
  if (!file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(count)))
    throw std::runtime_error(path + ": cannot be read");
  return bytes;
}

inline std::ifstream open_idx(const std::string& path, std::uint32_t magic) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  const std::uint32_t found = read_big_endian(file, path);
  if (found != magic)
    throw std::runtime_error(path + ": magic number " + std::to_string(found) + ", expected " +
                             std::to_string(magic) + " (uncompressed IDX)");
  return file;
}

inline IdxImages read_idx_images(const std::string& path) {
  std::ifstream file = open_idx(path, 0x803);
  IdxImages images;
  images.count = read_big_endian(file, path);
  images.height = read_big_endian(file, path);
  images.width = read_big_endian(file, path);
  if (images.height > 1024 || images.width > 1024)
    throw std::runtime_error(path + ": images over 1024 pixels");
  images.pixels = read_rest(
      file, path, static_cast<std::uint64_t>(images.count * images.height * images.width));
  return images;
}

inline std::vector<std::uint8_t> read_idx_labels(const std::string& path) {
  std::ifstream file = open_idx(path, 0x801);
  const std::uint32_t count = read_big_endian(file, path);
  return read_rest(file, path, count);
}
