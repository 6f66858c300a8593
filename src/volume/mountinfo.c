/*
 * Parsing /proc/self/mountinfo (proc(5): "id parent maj:min root point options [fields] - type source
 * super"), and removing the mounts of dead engines.
 */
#include "volume/mountinfo.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

/* Octal escapes (\040) to bytes, in place. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
			s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

static void entry_free(struct pv_mount_entry *entry)
{
	free(entry->point);
	free(entry->type);
	free(entry->source);
	free(entry->options);
}

static bool parse_line(char *line, struct pv_mount_entry *ret_entry)
{
	char *fields[6], *save = NULL, *type, *source, *options;
	char *rest = strstr(line, " - ");

	if (!rest)
		return false;
	*rest = '\0';
	rest += 3;
	for (unsigned i = 0; i < 6; i++) {
		fields[i] = strtok_r(i ? NULL : line, " ", &save);
		if (!fields[i])
			return false;
	}
	type = strtok_r(rest, " ", &save);
	source = type ? strtok_r(NULL, " ", &save) : NULL;
	options = source ? strtok_r(NULL, " ", &save) : NULL;
	if (!source)
		return false;
	unescape(fields[4]);
	unescape(source);
	*ret_entry = (struct pv_mount_entry){
		.id = atoi(fields[0]),
		.parent = atoi(fields[1]),
		.point = strdup(fields[4]),
		.type = strdup(type),
		.source = strdup(source),
		.options = strdup(options ? options : ""),
	};
	if (ret_entry->point && ret_entry->type && ret_entry->source && ret_entry->options)
		return true;
	entry_free(ret_entry);
	return false;
}

int pv_mount_table_parse(const char *text, struct pv_mount_table *ret_table)
{
	pv_autofree char *copy = strdup(text);
	struct pv_mount_table table = {0};
	char *save = NULL;

	if (!copy)
		return -ENOMEM;
	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct pv_mount_entry entry, *grown;

		if (!parse_line(line, &entry))
			continue;
		grown = reallocarray(table.entries, table.count + 1, sizeof(entry));
		if (!grown) {
			entry_free(&entry);
			pv_mount_table_free(&table);
			return -ENOMEM;
		}
		table.entries = grown;
		table.entries[table.count++] = entry;
	}
	*ret_table = table;
	return 0;
}

/* The file is generated while it is read: it must be read to its end with one descriptor. */
static int read_mountinfo(char **ret_text)
{
	pv_autoclose int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	pv_autofree char *text = NULL;
	size_t size = 0, capacity = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n;

		if (capacity - size < 4096) {
			char *grown = realloc(text, capacity + 65536);

			if (!grown)
				return -ENOMEM;
			text = grown;
			capacity += 65536;
		}
		n = read(fd, text + size, capacity - size - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		size += (size_t)n;
	}
	text[size] = '\0';
	*ret_text = pv_steal_ptr(&text);
	return 0;
}

int pv_mount_table_read(struct pv_mount_table *ret_table, struct pv_error *err)
{
	pv_autofree char *text = NULL;
	int r = read_mountinfo(&text);

	if (r >= 0)
		r = pv_mount_table_parse(text, ret_table);
	return r < 0 ? pv_fail(err, r, NULL, "cannot read the mount table: %s", pv_strerror(r)) : 0;
}

void pv_mount_table_free(struct pv_mount_table *table)
{
	for (size_t i = 0; i < table->count; i++)
		entry_free(&table->entries[i]);
	free(table->entries);
	*table = (struct pv_mount_table){0};
}

bool pv_path_is_below(const char *path, const char *point)
{
	size_t n = strlen(point);

	while (n > 1 && point[n - 1] == '/')
		n--;
	if (n == 1)
		return *path == '/';
	return !strncmp(path, point, n) && (path[n] == '/' || !path[n]);
}

static bool is_fuse(const struct pv_mount_entry *entry)
{
	return !strcmp(entry->type, "fuse") || !strncmp(entry->type, "fuse.", 5);
}

const struct pv_mount_entry *pv_mount_table_pvol(const struct pv_mount_table *table, const char *path)
{
	for (size_t i = table->count; i-- > 0;) {
		const struct pv_mount_entry *entry = &table->entries[i];

		if (is_fuse(entry) && !strcmp(entry->source, "pvol") && pv_path_is_below(path, entry->point))
			return entry;
	}
	return NULL;
}

static int detach(const char *point)
{
	char program[] = "fusermount3", unmount[] = "-uzq", end[] = "--";
	pv_autofree char *copy = strdup(point);
	char *argv[] = {program, unmount, end, copy, NULL};
	const char *const paths[] = {
		"/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3"};
	pid_t pid;
	int status;

	if (geteuid() == 0)
		return umount2(point, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
	if (!copy)
		return -ENOMEM;
	for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		if (pv_process_spawn(paths[i], argv, NULL, 0, &pid, NULL) < 0)
			continue;
		while (waitpid(pid, &status, 0) < 0) {
			if (errno != EINTR)
				return -errno;
		}
		return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
	}
	return -ENOENT;
}

int pv_mounts_detach_below(const char *point, struct pv_error *err)
{
	struct pv_mount_table table;
	int r, left = 0;

	r = pv_mount_table_read(&table, err);
	if (r < 0)
		return r;
	for (size_t i = table.count; i-- > 0;) {
		const struct pv_mount_entry *entry = &table.entries[i];

		/* ours, and what others have mounted on top; nothing that merely has the place now */
		if (!is_fuse(entry) || !pv_path_is_below(entry->point, point) ||
			!pv_mount_table_pvol(&table, entry->point))
			continue;
		r = detach(entry->point);
		if (r < 0) {
			pv_log(PV_LOG_WARNING, "a dead mount cannot be removed: %s", pv_strerror(r));
			left++;
		}
	}
	pv_mount_table_free(&table);
	return left;
}
