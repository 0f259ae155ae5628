/* Whether the library leaves the process alone: quiet MODEL BAD. Fails with the number of what it
 * noticed. */
#define _POSIX_C_SOURCE 200809L
#include <fenv.h>
#include <locale.h>
#include <pycnn/pycnn_c.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { SIGNALS = 32 };

static void look(void (*handlers[SIGNALS])(int), sigset_t* mask) {
  int i;
  for (i = 1; i < SIGNALS; ++i) {
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    sigaction(i, NULL, &action);
    handlers[i] = action.sa_handler;
  }
  sigprocmask(SIG_BLOCK, NULL, mask);
}

int main(int argc, char** argv) {
  void (*before[SIGNALS])(int) = {0};
  void (*after[SIGNALS])(int) = {0};
  sigset_t mask_before, mask_after;
  pycnn_model* model = NULL;
  pycnn_model* none = NULL;
  pycnn_program* program = NULL;
  pycnn_trainer* trainer = NULL;
  pycnn_trainer_options training;
  pycnn_array_info in, out, image;
  pycnn_input input;
  pycnn_output output;
  int64_t label = 0, no_class = 1000;
  char locale[64] = "";
  int i;
  if (argc != 3) return 2;
  look(before, &mask_before);
  strncpy(locale, setlocale(LC_ALL, NULL), sizeof(locale) - 1);
  fesetround(FE_UPWARD);

  /* Failures of every kind that a caller can make. */
  if (pycnn_model_load(argv[2], &none) != PYCNN_FORMAT_ERROR) return 3;
  if (pycnn_model_load("/nowhere", &none) != PYCNN_FILE_ERROR) return 4;
  if (pycnn_model_load(NULL, &none) != PYCNN_ARGUMENT_ERROR) return 5;
  if (pycnn_program_run(NULL, NULL, 0, NULL, 0) != PYCNN_ARGUMENT_ERROR) return 6;

  if (pycnn_model_load(argv[1], &model) != PYCNN_OK) return 7;
  if (pycnn_program_compile(model, NULL, &program) != PYCNN_OK) return 8;
  if (pycnn_program_input(program, 0, &in) != PYCNN_OK) return 9;
  if (pycnn_program_output(program, 0, &out) != PYCNN_OK) return 10;
  input.data = calloc(1, in.bytes);
  input.bytes = in.bytes;
  output.data = malloc(out.bytes);
  output.bytes = out.bytes;
  if (pycnn_program_run(program, &input, 1, &output, 1) != PYCNN_OK) return 11;
  --input.bytes;
  if (pycnn_program_run(program, &input, 1, &output, 1) != PYCNN_ARGUMENT_ERROR) return 12;
  ++input.bytes;
  pycnn_trainer_options_init(&training, sizeof(training));
  if (pycnn_trainer_create(model, &training, &trainer) != PYCNN_OK) return 13;
  if (pycnn_trainer_image(trainer, &image) != PYCNN_OK || image.bytes != in.bytes) return 14;
  if (pycnn_trainer_step(trainer, input, &label, 1, NULL, NULL) != PYCNN_OK) return 15;
  if (pycnn_trainer_step(trainer, input, &no_class, 1, NULL, NULL) != PYCNN_LABEL_ERROR) return 16;
  if (pycnn_trainer_save(trainer, "/nowhere/x") != PYCNN_FILE_ERROR) return 17;

  look(after, &mask_after);
  for (i = 1; i < SIGNALS; ++i)
    if (before[i] != after[i] || sigismember(&mask_before, i) != sigismember(&mask_after, i))
      return 100 + i;
  if (strcmp(locale, setlocale(LC_ALL, NULL)) != 0) return 18;
  if (fegetround() != FE_UPWARD) return 19;
  free((void*)(uintptr_t)input.data);
  free(output.data);
  pycnn_trainer_free(trainer);
  pycnn_program_free(program);
  pycnn_model_free(model);
  return 0;
}
