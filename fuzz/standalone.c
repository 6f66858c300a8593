/*
 * Runs a fuzz target without libFuzzer: first every file of the corpus as it is, then random mutations of
 * them, by seed, until the time is over. A sanitizer's report aborts; the input that caused it is left in a
 * file, which can be given to the program again.
 *
 *   fuzz-TARGET [-s SECONDS] [-n RUNS] [-S SEED] FILE-OR-DIRECTORY...
 *
 * Seconds 0 (the default) and runs 0: the corpus only.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "target.h"

#define INPUT_MAX (1U << 20)
#define MAX_CORPUS 1024

struct input {
	uint8_t *data;
	size_t size;
};

static struct input corpus[MAX_CORPUS];
static size_t ncorpus;

static uint8_t current[INPUT_MAX];
static size_t current_size;
static char crash_file[256];

static uint64_t random_state;

/* xorshift64*: reproducible by seed, on every machine. */
static uint64_t next_random(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1dULL;
}

static size_t below(size_t limit)
{
	return limit ? (size_t)(next_random() % limit) : 0;
}

static void save_input(void)
{
	int fd = open(crash_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, current, current_size) < 0)
		return;
	close(fd);
	dprintf(2, "the input is in %s\n", crash_file);
}

static void on_signal(int signal)
{
	save_input();
	_exit(128 + signal);
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void run(void)
{
	LLVMFuzzerTestOneInput(current, current_size);
}

static void add_file(const char *path)
{
	struct input *input = &corpus[ncorpus];
	FILE *f = fopen(path, "rb");

	if (!f || ncorpus == MAX_CORPUS) {
		fprintf(stderr, "cannot use %s\n", path);
		exit(2);
	}
	input->data = malloc(INPUT_MAX);
	if (!input->data)
		exit(2);
	input->size = fread(input->data, 1, INPUT_MAX, f);
	fclose(f);
	ncorpus++;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* In the order of names, so that a seed means the same everywhere. */
static void add_path(const char *path)
{
	char *names[MAX_CORPUS], file[4096];
	struct dirent *entry;
	struct stat st;
	size_t n = 0;
	DIR *dir;

	if (stat(path, &st) || !S_ISDIR(st.st_mode)) {
		add_file(path);
		return;
	}
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) && n < MAX_CORPUS)
		if (entry->d_name[0] != '.')
			names[n++] = strdup(entry->d_name);
	if (dir)
		closedir(dir);
	qsort(names, n, sizeof(names[0]), compare_names);
	for (size_t i = 0; i < n; i++) {
		snprintf(file, sizeof(file), "%s/%s", path, names[i]);
		add_file(file);
		free(names[i]);
	}
}

/* Replaces `cut` bytes at `at` by `size` bytes of `data`. */
static void replace(size_t at, size_t cut, const void *data, size_t size)
{
	if (current_size - cut + size > INPUT_MAX)
		return;
	memmove(current + at + size, current + at + cut, current_size - at - cut);
	memmove(current + at, data, size);
	current_size += size - cut;
}

/* Replaces a run of decimal digits, where parsers of text have their limits. */
static void mutate_number(void)
{
	static const char *const numbers[] = {"0", "1", "-1", "31", "32", "255", "4095", "4096", "65536",
		"2147483647", "2147483648", "4294967295", "4294967296", "9223372036854775807",
		"9223372036854775808", "18446744073709551615", "99999999999999999999999", "1e9", "0x10",
		"00"};
	const char *number = numbers[below(sizeof(numbers) / sizeof(numbers[0]))];
	size_t at = below(current_size), end;

	while (at < current_size && (current[at] < '0' || current[at] > '9'))
		at++;
	for (end = at; end < current_size && current[end] >= '0' && current[end] <= '9';)
		end++;
	replace(at, end - at, number, strlen(number));
}

static void mutate_from_corpus(void)
{
	const struct input *other = &corpus[below(ncorpus)];
	size_t from = below(other->size), size = below(other->size - from), at = below(current_size);
	size_t cut = below(2) ? 0 : below(current_size - at);

	replace(at, cut, other->data + from, size < 4096 ? size : 4096);
}

static void mutate_once(void)
{
	static const char *const tokens[] = {"{", "}", "[", "]", "\"", ",", ":", "null", "true", "\\u0000",
		"{}", "[]", "\n", "\"0\"", "\"\"", "\xff", "[[[[[[[[[[[[[[[["};
	size_t at = below(current_size), n;
	const char *token;
	uint8_t byte;

	switch (below(9)) {
	case 0:
		if (current_size)
			current[at] ^= (uint8_t)(1U << below(8));
		break;
	case 1:
		if (current_size)
			current[at] = (uint8_t)next_random();
		break;
	case 2: replace(at, below(current_size - at < 16 ? current_size - at : 16), "", 0); break;
	case 3:
		byte = (uint8_t)next_random();
		replace(at, 0, &byte, 1);
		break;
	case 4:
		token = tokens[below(sizeof(tokens) / sizeof(tokens[0]))];
		replace(at, below(2) && at < current_size, token, strlen(token));
		break;
	case 5:
	case 6: mutate_number(); break;
	case 7: mutate_from_corpus(); break;
	case 8: /* double a piece */
		n = below(current_size - at < 256 ? current_size - at : 256);
		if (current_size + n <= INPUT_MAX) {
			memmove(current + at + n, current + at, current_size - at);
			current_size += n;
		}
		break;
	}
}

static void mutate(void)
{
	const struct input *base = &corpus[below(ncorpus)];
	size_t times = 1 + below(8);

	memcpy(current, base->data, base->size);
	current_size = base->size;
	while (times--)
		mutate_once();
}

int main(int argc, char **argv)
{
	unsigned long runs = 0, done = 0;
	time_t seconds = 0, end;
	int option;

	random_state = (uint64_t)time(NULL) ^ ((uint64_t)getpid() << 32);
	while ((option = getopt(argc, argv, "s:n:S:")) != -1) {
		switch (option) {
		case 's': seconds = (time_t)strtol(optarg, NULL, 10); break;
		case 'n': runs = strtoul(optarg, NULL, 10); break;
		case 'S': random_state = strtoull(optarg, NULL, 0); break;
		default: return 2;
		}
	}
	for (int i = optind; i < argc; i++)
		add_path(argv[i]);
	if (!ncorpus) {
		fprintf(stderr, "usage: %s [-s SECONDS] [-n RUNS] [-S SEED] FILE-OR-DIRECTORY...\n", argv[0]);
		return 2;
	}
	random_state |= 1;
	printf("seed 0x%llx, %zu files\n", (unsigned long long)random_state, ncorpus);
	fflush(stdout);
	snprintf(crash_file, sizeof(crash_file), "crash-%d", getpid());
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(save_input);
	signal(SIGABRT, on_signal);
	signal(SIGALRM, on_signal); /* an input that takes a minute is a finding too */
	if (!__sanitizer_set_death_callback)
		signal(SIGSEGV, on_signal);
	for (size_t i = 0; i < ncorpus; i++) {
		memcpy(current, corpus[i].data, corpus[i].size);
		current_size = corpus[i].size;
		run();
	}
	end = time(NULL) + seconds;
	while ((runs && done < runs) || (seconds && time(NULL) < end)) {
		alarm(60);
		mutate();
		run();
		done++;
	}
	printf("%lu mutations, nothing found\n", done);
	for (size_t i = 0; i < ncorpus; i++)
		free(corpus[i].data);
	return 0;
}
