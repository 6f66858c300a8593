/*
 * Progress of a long call. On a terminal a line appears once the call has taken two seconds and vanishes with
 * its end; --progress=json writes every report as a line of JSON to standard error.
 */
#include "cli/cli_int.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#define SHOW_AFTER_MS 2000

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void cli_meter_start(struct cli_meter *meter, const struct cli *cli)
{
	*meter = (struct cli_meter){.mode = cli->progress, .started_ms = now_ms()};
	snprintf(meter->phase, sizeof(meter->phase), "working");
	if (meter->mode == CLI_PROGRESS_AUTO && !isatty(STDERR_FILENO))
		meter->mode = CLI_PROGRESS_NONE;
}

void cli_meter_update(struct cli_meter *meter, struct json_object *progress)
{
	if (meter->mode == CLI_PROGRESS_JSON) {
		fprintf(stderr, "%s\n",
			json_object_to_json_string_ext(progress, JSON_C_TO_STRING_NOSLASHESCAPE));
		return;
	}
	snprintf(meter->phase, sizeof(meter->phase), "%s", pv_json_string(progress, "phase", "working"));
	meter->done = pv_json_u64(progress, "done", 0);
	meter->total = pv_json_u64(progress, "total", 0);
}

void cli_meter_tick(struct cli_meter *meter)
{
	int64_t elapsed = now_ms() - meter->started_ms;

	if (meter->mode != CLI_PROGRESS_AUTO || elapsed < SHOW_AFTER_MS)
		return;
	meter->shown = true;
	fputs("\r\033[K", stderr);
	cli_print_safe(stderr, meter->phase);
	if (meter->total > 0) {
		double share = (double)meter->done / (double)meter->total;

		if (share > 1)
			share = 1;
		fprintf(stderr, "  %3.0f %%", share * 100);
		if (share > 0.02 && share < 1)
			fprintf(stderr, "  %.0f s left", (double)elapsed / 1000 / share * (1 - share));
	} else {
		fprintf(stderr, "  %" PRId64 " s", elapsed / 1000);
	}
	fflush(stderr);
}

void cli_meter_end(struct cli_meter *meter)
{
	if (meter->shown) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
	}
	meter->shown = false;
}
