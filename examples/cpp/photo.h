#pragma once
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef HAVE_JPEG
#include <jpeglib.h>
#endif

// Photographs for a network: read, cut and scaled as `pycnn predict` does it.

// Rows of pixels, each of `channels` bytes.
struct Photo {
  std::int64_t height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;
};

constexpr std::int64_t kMaxPhotoPixels = std::int64_t{1} << 26;

inline void check_photo_size(const std::string& path, std::int64_t height, std::int64_t width) {
  if (height < 1 || width < 1 || height > kMaxPhotoPixels / width)
    throw std::runtime_error(path + ": " + std::to_string(width) + " x " + std::to_string(height) +
                             " pixels, expected 1 to " + std::to_string(kMaxPhotoPixels));
}

// Binary PGM (P5, grey) and PPM (P6, colour) with 8 bits a channel.
inline Photo read_ppm(std::ifstream& file, const std::string& path) {
  char magic[2] = {};
  file.read(magic, 2);
  const auto number = [&] {
    while ((file >> std::ws).peek() == '#') {
      std::string comment;
      std::getline(file, comment);
    }
    std::int64_t value = -1;
    if (!(file >> value)) throw std::runtime_error(path + ": ends inside its header");
    return value;
  };
  Photo photo;
  photo.channels = magic[1] == '6' ? 3 : 1;
  photo.width = number();
  photo.height = number();
  check_photo_size(path, photo.height, photo.width);
  if (const std::int64_t most = number(); most != 255)
    throw std::runtime_error(path + ": highest value " + std::to_string(most) + ", expected 255");
  file.get();
  photo.pixels.resize(static_cast<std::size_t>(photo.height * photo.width * photo.channels));
  if (!file.read(reinterpret_cast<char*>(photo.pixels.data()),
                 static_cast<std::streamsize>(photo.pixels.size())))
    throw std::runtime_error(path + ": ends inside its pixels");
  return photo;
}

#ifdef HAVE_JPEG
// libjpeg would end the process on an error; this goes back to read_jpeg instead.
struct JpegErrors {
  jpeg_error_mgr manager;
  std::jmp_buf back;
  char text[JMSG_LENGTH_MAX];
};

// `photo` is the caller's: a local object that changes after setjmp is undefined after longjmp.
inline void read_jpeg(const std::string& path, Photo& photo) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             std::fclose);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  jpeg_decompress_struct jpeg = {};
  JpegErrors errors = {};
  jpeg.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = [](j_common_ptr common) {
    auto* const own = reinterpret_cast<JpegErrors*>(common->err);
    common->err->format_message(common, own->text);
    std::longjmp(own->back, 1);
  };
  errors.manager.output_message = [](j_common_ptr) {};
  if (setjmp(errors.back) != 0) {
    jpeg_destroy_decompress(&jpeg);
    throw std::runtime_error(path + ": " + errors.text);
  }
  jpeg_create_decompress(&jpeg);
  jpeg_stdio_src(&jpeg, file.get());
  jpeg_read_header(&jpeg, TRUE);
  jpeg.out_color_space = jpeg.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&jpeg);
  photo.height = jpeg.output_height;
  photo.width = jpeg.output_width;
  photo.channels = jpeg.output_components;
  if (photo.height > kMaxPhotoPixels / photo.width) {
    jpeg_destroy_decompress(&jpeg);
    check_photo_size(path, photo.height, photo.width);
  }
  photo.pixels.resize(static_cast<std::size_t>(photo.height * photo.width * photo.channels));
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = photo.pixels.data() + static_cast<std::size_t>(jpeg.output_scanline) *
                                             jpeg.output_width * jpeg.output_components;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  jpeg_destroy_decompress(&jpeg);
}
#endif

// By the file's first bytes, whatever it is called. EXIF's orientation is not looked at.
inline Photo read_photo(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  unsigned char start[2] = {};
  file.read(reinterpret_cast<char*>(start), 2);
  file.seekg(0);
  if (start[0] == 'P' && (start[1] == '5' || start[1] == '6')) return read_ppm(file, path);
  if (start[0] == 0xFF && start[1] == 0xD8) {
#ifdef HAVE_JPEG
    Photo photo;
    read_jpeg(path, photo);
    return photo;
#else
    throw std::runtime_error(path + ": is a JPEG file; this program was built without libjpeg");
#endif
  }
  throw std::runtime_error(path + ": is neither a JPEG nor a binary PPM or PGM file");
}

// What each of `target` pixels takes from `extent` source pixels that begin at `start`: a triangle
// over its place, as wide as a target pixel, so that shrinking averages.
struct Taps {
  std::int64_t first = 0;
  std::vector<float> weights;
};

inline std::vector<Taps> triangle_taps(std::int64_t source, double start, double extent,
                                       std::int64_t target) {
  const double scale = extent / static_cast<double>(target), radius = std::max(scale, 1.0);
  std::vector<Taps> all;
  for (std::int64_t i = 0; i < target; ++i) {
    const double center = start + (static_cast<double>(i) + 0.5) * scale;
    Taps taps;
    taps.first = std::max<std::int64_t>(0, std::llround(center - radius));
    const std::int64_t end = std::min<std::int64_t>(source, std::llround(center + radius));
    double sum = 0;
    for (std::int64_t s = taps.first; s < std::max(end, taps.first + 1); ++s) {
      const double distance = std::abs(static_cast<double>(s) + 0.5 - center) / radius;
      taps.weights.push_back(static_cast<float>(std::max(0.0, 1.0 - distance)));
      sum += taps.weights.back();
    }
    for (float& weight : taps.weights)
      weight = sum > 0 ? static_cast<float>(weight / sum)
                       : 1.0f / static_cast<float>(taps.weights.size());
    all.push_back(std::move(taps));
  }
  return all;
}

// The photo for a network: grey or colour as it wants, the middle cut out so that the proportions
// fit, scaled; bytes (height, width, channels).
inline std::vector<std::uint8_t> fit_photo(const Photo& photo, std::int64_t height,
                                           std::int64_t width, std::int64_t channels) {
  if (channels != 1 && channels != 3)
    throw std::runtime_error("the network wants " + std::to_string(channels) +
                             " channels, a photograph has 1 or 3");
  const double factor = std::min(static_cast<double>(photo.height) / static_cast<double>(height),
                                 static_cast<double>(photo.width) / static_cast<double>(width));
  const double rows = factor * static_cast<double>(height);
  const double columns = factor * static_cast<double>(width);
  const auto down =
      triangle_taps(photo.height, (static_cast<double>(photo.height) - rows) / 2, rows, height);
  const auto across =
      triangle_taps(photo.width, (static_cast<double>(photo.width) - columns) / 2, columns, width);
  std::vector<std::uint8_t> result;
  result.reserve(static_cast<std::size_t>(height * width * channels));
  for (const Taps& row : down) {
    for (const Taps& column : across) {
      float sums[3] = {};
      for (std::size_t r = 0; r < row.weights.size(); ++r)
        for (std::size_t c = 0; c < column.weights.size(); ++c)
          for (std::int64_t k = 0; k < photo.channels; ++k)
            sums[k] += row.weights[r] * column.weights[c] *
                       photo.pixels[static_cast<std::size_t>(
                           ((row.first + static_cast<std::int64_t>(r)) * photo.width +
                            column.first + static_cast<std::int64_t>(c)) *
                               photo.channels +
                           k)];
      if (photo.channels == 1) sums[1] = sums[2] = sums[0];
      if (channels == 1) sums[0] = 0.299f * sums[0] + 0.587f * sums[1] + 0.114f * sums[2];
      for (std::int64_t k = 0; k < channels; ++k)
        result.push_back(static_cast<std::uint8_t>(std::clamp(sums[k] + 0.5f, 0.0f, 255.0f)));
    }
  }
  return result;
}
