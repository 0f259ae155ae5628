/* Runs and trains a model file through the C interface.
 *
 *   digits MODEL.safetensors IMAGES.idx3-ubyte LABELS.idx1-ubyte STEPS OUT.safetensors
 *
 * classifies the first images, trains with batches of 64 from the file's start on, writes the model
 * and classifies again: the program that was compiled before follows the training. */
#include <pycnn/pycnn_c.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 64 };

/* The format of the MNIST files: big-endian counts, then bytes. */
typedef struct idx_file {
  uint32_t sizes[3]; /* one for labels, three for images */
  unsigned char* bytes;
  size_t count;
} idx_file;

static int read_idx(const char* path, int axes, idx_file* idx) {
  FILE* file = fopen(path, "rb");
  unsigned char word[4];
  int i, ok = file != NULL && fread(word, 1, 4, file) == 4 && word[2] == 8 && word[3] == axes;
  idx->count = 1;
  idx->bytes = NULL;
  for (i = 0; ok && i < axes; ++i) {
    ok = fread(word, 1, 4, file) == 4;
    idx->sizes[i] = (uint32_t)word[0] << 24 | (uint32_t)word[1] << 16 | (uint32_t)word[2] << 8 |
                    (uint32_t)word[3];
    ok = ok && idx->sizes[i] > 0 && idx->count <= (size_t)1 << 30 &&
         idx->sizes[i] <= (uint32_t)1 << 24;
    if (ok) idx->count *= idx->sizes[i];
  }
  if (ok) idx->bytes = malloc(idx->count);
  ok = ok && idx->bytes != NULL && fread(idx->bytes, 1, idx->count, file) == idx->count;
  if (file != NULL) fclose(file);
  if (!ok) fprintf(stderr, "digits: %s is no IDX file with %d axes\n", path, axes);
  return ok;
}

/* Says what failed; for `if (failed(...)) goto done`. */
static int failed(pycnn_status status) {
  if (status == PYCNN_OK) return 0;
  fprintf(stderr, "digits: %s: %s\n", pycnn_status_name(status), pycnn_last_error());
  return 1;
}

/* How many of the first BATCH images get their label. */
static int count_right(const pycnn_program* program, const idx_file* images, const idx_file* labels,
                       int* right) {
  pycnn_array_info in, out;
  pycnn_input input;
  pycnn_output output;
  float* scores;
  int64_t n, c, best, classes;
  if (failed(pycnn_program_input(program, 0, &in)) ||
      failed(pycnn_program_output(program, 0, &out)))
    return 0;
  scores = malloc(out.bytes);
  if (scores == NULL) return 0;
  input.data = images->bytes; /* bytes as they are: the program reads value / 255 */
  input.bytes = in.bytes;
  output.data = scores;
  output.bytes = out.bytes;
  if (failed(pycnn_program_run(program, &input, 1, &output, 1))) {
    free(scores);
    return 0;
  }
  classes = out.shape[1];
  *right = 0;
  for (n = 0; n < out.shape[0]; ++n) {
    for (best = 0, c = 1; c < classes; ++c)
      if (scores[n * classes + c] > scores[n * classes + best]) best = c;
    *right += best == labels->bytes[n];
  }
  free(scores);
  return 1;
}

int main(int argc, char** argv) {
  pycnn_model* model = NULL;
  pycnn_program* program = NULL;
  pycnn_trainer* trainer = NULL;
  pycnn_compile_options compile;
  pycnn_trainer_options training;
  pycnn_array_info image;
  idx_file images = {{0}, NULL, 0}, labels = {{0}, NULL, 0};
  int64_t batch_labels[BATCH], correct;
  double loss;
  long step, steps;
  int right, result = 1;

  if (argc != 6) {
    fprintf(stderr, "usage: %s MODEL IMAGES LABELS STEPS OUT\n", argv[0]);
    return 2;
  }
  if (!read_idx(argv[2], 3, &images) || !read_idx(argv[3], 1, &labels)) goto done;
  if (images.sizes[0] != labels.sizes[0] || labels.count < BATCH) {
    fprintf(stderr, "digits: %u images and %u labels\n", images.sizes[0], labels.sizes[0]);
    goto done;
  }
  steps = strtol(argv[4], NULL, 10);

  if (failed(pycnn_model_load(argv[1], &model))) goto done;
  if (failed(pycnn_compile_options_init(&compile, sizeof(compile)))) goto done;
  compile.batch = BATCH;
  compile.images = PYCNN_UINT8;
  if (failed(pycnn_program_compile(model, &compile, &program))) goto done;

  if (failed(pycnn_trainer_options_init(&training, sizeof(training)))) goto done;
  training.learning_rate = 0.05;
  training.compile = &compile;
  if (failed(pycnn_trainer_create(model, &training, &trainer))) goto done;
  if (failed(pycnn_trainer_image(trainer, &image))) goto done;
  if (image.bytes != (size_t)images.sizes[1] * images.sizes[2]) {
    fprintf(stderr, "digits: the model wants images of %d x %d\n", (int)image.shape[1],
            (int)image.shape[2]);
    goto done;
  }

  if (!count_right(program, &images, &labels, &right)) goto done;
  printf("before: %d of %d right\n", right, BATCH);
  for (step = 0; step < steps; ++step) {
    const size_t batches = labels.count / BATCH, begin = (size_t)step % batches * BATCH;
    pycnn_input batch;
    int i;
    batch.data = images.bytes + begin * image.bytes;
    batch.bytes = image.bytes * BATCH;
    for (i = 0; i < BATCH; ++i) batch_labels[i] = labels.bytes[begin + (size_t)i];
    if (failed(pycnn_trainer_step(trainer, batch, batch_labels, BATCH, &loss, &correct))) goto done;
    if (step == 0 || step + 1 == steps) printf("step %ld: loss %.4f\n", step + 1, loss);
  }
  if (!count_right(program, &images, &labels, &right)) goto done;
  printf("after: %d of %d right\n", right, BATCH);
  if (failed(pycnn_trainer_save(trainer, argv[5]))) goto done;
  result = 0;

done:
  pycnn_trainer_free(trainer);
  pycnn_program_free(program);
  pycnn_model_free(model);
  free(images.bytes);
  free(labels.bytes);
  return result;
}
