/*
 * What pvol prints: errors and warnings to standard error, what was asked for to standard output. Names and
 * labels come from volumes that anybody may have made, so they are printed with control bytes escaped.
 */
#include "cli/cli_int.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <wchar.h>
#include <wctype.h>

void cli_print_safe(FILE *to, const char *text)
{
	mbstate_t state = {0};

	while (*text) {
		wchar_t wide;
		size_t n = mbrtowc(&wide, text, strlen(text), &state);

		if (n == (size_t)-1 || n == (size_t)-2 || n == 0) {
			fprintf(to, "\\x%02x", (unsigned char)*text++);
			memset(&state, 0, sizeof(state));
		} else if (!iswprint((wint_t)wide)) {
			while (n--)
				fprintf(to, "\\x%02x", (unsigned char)*text++);
		} else {
			fwrite(text, 1, n, to);
			text += n;
		}
	}
}

int cli_fail(const struct pv_error *err)
{
	fflush(stdout);
	fputs("pvol: ", stderr);
	if (err->object[0]) {
		cli_print_safe(stderr, err->object);
		fputs(": ", stderr);
	}
	cli_print_safe(stderr, err->message[0] ? err->message : pv_strerror(err->code));
	fputc('\n', stderr);
	if (err->remedy[0]) {
		fputs("  ", stderr);
		cli_print_safe(stderr, err->remedy);
		fputc('\n', stderr);
	}
	return err->exit == PV_EXIT_OK ? PV_EXIT_FAILED : (int)err->exit;
}

int cli_usage(struct cli *cli, const char *fmt, ...)
{
	struct pv_error err = {0};
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pv_fail_as(&err, -EINVAL, PV_EXIT_USAGE, cli->command->name, "%s", text);
	pv_remedy(&err, "usage: pvol %s%s%s   ('pvol help %s' tells more)", cli->command->name,
		cli->command->synopsis[0] ? " " : "", cli->command->synopsis, cli->command->name);
	return cli_fail(&err);
}

void cli_warn(const char *object, const char *text)
{
	fflush(stdout);
	fputs("pvol: ", stderr);
	if (object && *object) {
		cli_print_safe(stderr, object);
		fputs(": ", stderr);
	}
	fputs("warning: ", stderr);
	cli_print_safe(stderr, text);
	fputc('\n', stderr);
}

const char *cli_size(uint64_t bytes, char *ret, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 1023.95 && unit < 6) {
		value /= 1024;
		unit++;
	}
	if (unit == 0 || (value == (double)(uint64_t)value && value < 1000))
		snprintf(ret, size, "%.0f %s", value, units[unit]);
	else
		snprintf(ret, size, value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return ret;
}

const char *cli_time(int64_t seconds, char *ret, size_t size)
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (seconds <= 0 || !localtime_r(&t, &tm) || !strftime(ret, size, "%Y-%m-%d %H:%M:%S", &tm))
		snprintf(ret, size, "-");
	return ret;
}

int cli_flush(void)
{
	struct pv_error err = {0};

	if (fflush(stdout) == 0 && !ferror(stdout))
		return PV_EXIT_OK;
	pv_fail(&err, -errno, "standard output", "cannot write: %s", pv_strerror(errno));
	return cli_fail(&err);
}

int cli_print_json(struct json_object *json)
{
	int flags = isatty(STDOUT_FILENO) ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED : 0;

	puts(json_object_to_json_string_ext(json, flags | JSON_C_TO_STRING_NOSLASHESCAPE));
	return cli_flush();
}

bool cli_interactive(void)
{
	return isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

/* One line from standard input without its end, cut to `size`. */
static bool read_line(char *line, size_t size)
{
	if (!fgets(line, (int)size, stdin))
		return false;
	line[strcspn(line, "\n")] = '\0';
	return true;
}

bool cli_confirm(const char *fmt, ...)
{
	char answer[16];
	va_list ap;

	fflush(stdout);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs(" [y/N] ", stderr);
	return read_line(answer, sizeof(answer)) && (!strcmp(answer, "y") || !strcmp(answer, "yes"));
}

bool cli_confirm_by_name(const char *name, const char *fmt, ...)
{
	char answer[4096];
	va_list ap;

	fflush(stdout);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	return read_line(answer, sizeof(answer)) && !strcmp(answer, name);
}

/* ---- tables ---- */

#define TABLE_COLUMNS 12

struct cli_table {
	unsigned columns;
	bool right[TABLE_COLUMNS];
	char **cells; /* the heading first */
	size_t count;
	size_t allocated;
};

static size_t display_width(const char *text)
{
	char *buffer = NULL;
	size_t length = 0;
	FILE *f = open_memstream(&buffer, &length);

	if (!f)
		return strlen(text);
	cli_print_safe(f, text);
	fclose(f);

	size_t wide = mbstowcs(NULL, buffer, 0);

	free(buffer);
	return wide == (size_t)-1 ? length : wide;
}

void cli_table_cell(struct cli_table *table, const char *text)
{
	if (table->count == table->allocated) {
		size_t allocated = table->allocated ? table->allocated * 2 : 64;
		char **cells = reallocarray(table->cells, allocated, sizeof(*cells));

		if (!cells)
			abort();
		table->cells = cells;
		table->allocated = allocated;
	}

	char *copy = strdup(text && *text ? text : "-");

	if (!copy)
		abort();
	table->cells[table->count++] = copy;
}

struct cli_table *cli_table_new(const char *columns)
{
	struct cli_table *table = calloc(1, sizeof(*table));
	pv_autofree char *copy = strdup(columns);
	char *rest = NULL;

	if (!table || !copy)
		abort();
	for (char *word = strtok_r(copy, ",", &rest); word && table->columns < TABLE_COLUMNS;
		word = strtok_r(NULL, ",", &rest)) {
		table->right[table->columns++] = *word == '>';
		cli_table_cell(table, word + (*word == '>'));
	}
	return table;
}

void cli_table_size(struct cli_table *table, struct json_object *row, const char *key)
{
	char text[32];

	if (!json_object_object_get_ex(row, key, NULL)) {
		cli_table_cell(table, "-");
		return;
	}
	cli_table_cell(table, cli_size(pv_json_u64(row, key, 0), text, sizeof(text)));
}

void cli_table_print(struct cli_table *table)
{
	size_t width[TABLE_COLUMNS] = {0};

	for (size_t i = 0; i < table->count; i++) {
		size_t w = display_width(table->cells[i]);

		if (w > width[i % table->columns])
			width[i % table->columns] = w;
	}
	for (size_t i = 0; i < table->count; i++) {
		unsigned column = (unsigned)(i % table->columns);
		bool last = column == table->columns - 1;
		size_t pad = width[column] - display_width(table->cells[i]);

		if (table->right[column])
			printf("%*s", (int)pad, "");
		cli_print_safe(stdout, table->cells[i]);
		if (!table->right[column] && !last)
			printf("%*s", (int)pad, "");
		fputs(last ? "\n" : "  ", stdout);
		free(table->cells[i]);
	}
	free(table->cells);
	free(table);
}
