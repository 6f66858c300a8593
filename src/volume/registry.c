/*
 * Registry files:
 * {"version":1,"name","uuid","format","containers":[{"path","size"}],"at","slots":[{"slot","kind"}],
 * "pool_guid","last_txg","created","opened":{"at","read_only","boot"},
 * "interrupted","failed","incidents":[{"time","what","detail"}]}
 *
 * A file is valid if it is a JSON object of a known version whose name is that of the file and which names at
 * least one container by an absolute path. Temporary files are ".NAME.tmp"; one left by a crash is
 * overwritten by the next save and is never read.
 */
#include "volume/registry.h"
#include "base/cleanup.h"
#include "base/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define REGISTRY_VERSION 1
#define REGISTRY_MAX_FILE (1 << 20)

struct pv_record *pv_record_new(const char *name)
{
	struct pv_record *record = calloc(1, sizeof(*record));

	if (!record)
		return NULL;
	snprintf(record->name, sizeof(record->name), "%s", name);
	snprintf(record->format, sizeof(record->format), "luks2");
	record->incidents = json_object_new_array();
	return record;
}

struct pv_record *pv_record_free(struct pv_record *record)
{
	if (!record)
		return NULL;
	for (unsigned i = 0; i < record->ncontainers; i++)
		free(record->containers[i]);
	free(record->at);
	free(record->opened_at);
	free(record->failed);
	json_object_put(record->slots);
	json_object_put(record->incidents);
	free(record);
	return NULL;
}

void pv_record_incident(struct pv_record *record, const char *what, const char *detail)
{
	struct json_object *incident = json_object_new_object();
	size_t count;

	pv_json_add_int(incident, "time", time(NULL));
	pv_json_add_string(incident, "what", what);
	if (detail) {
		size_t length = strlen(detail);

		/* the end of a log says more than its beginning */
		if (length > PV_INCIDENT_DETAIL)
			detail += length - PV_INCIDENT_DETAIL;
		pv_json_add_string(incident, "detail", detail);
	}
	json_object_array_add(record->incidents, incident);
	count = json_object_array_length(record->incidents);
	if (count > PV_INCIDENTS_MAX)
		json_object_array_del_idx(record->incidents, 0, count - PV_INCIDENTS_MAX);
}

static struct json_object *record_to_json(const struct pv_record *record)
{
	struct json_object *json = json_object_new_object();
	struct json_object *containers = json_object_new_array();

	pv_json_add_int(json, "version", REGISTRY_VERSION);
	pv_json_add_string(json, "name", record->name);
	pv_json_add_string(json, "uuid", record->uuid);
	pv_json_add_string(json, "format", record->format);
	for (unsigned i = 0; i < record->ncontainers; i++) {
		struct json_object *container = json_object_new_object();

		pv_json_add_string(container, "path", record->containers[i]);
		pv_json_add_u64(container, "size", record->sizes[i]);
		json_object_array_add(containers, container);
	}
	json_object_object_add(json, "containers", containers);
	pv_json_add_string(json, "at", record->at);
	if (record->slots)
		json_object_object_add(json, "slots", json_object_get(record->slots));
	pv_json_add_u64(json, "pool_guid", record->pool_guid);
	pv_json_add_u64(json, "last_txg", record->last_txg);
	pv_json_add_int(json, "created", record->created);
	if (record->opened_at) {
		struct json_object *opened = json_object_new_object();

		pv_json_add_string(opened, "at", record->opened_at);
		pv_json_add_bool(opened, "read_only", record->opened_read_only);
		pv_json_add_string(opened, "boot", record->boot_id);
		json_object_object_add(json, "opened", opened);
	}
	if (record->interrupted)
		pv_json_add_bool(json, "interrupted", true);
	pv_json_add_string(json, "failed", record->failed);
	json_object_object_add(json, "incidents", json_object_get(record->incidents));
	return json;
}

static int damaged(struct pv_error *err, const char *name, const char *why)
{
	pv_fail(err, -EUCLEAN, name, "its registry file is damaged: %s", why);
	pv_remedy(err,
		"open the container by its path; that writes a new registry file after 'pvol forget %s'",
		name);
	return -EUCLEAN;
}

static int containers_from_json(struct json_object *json, struct pv_record *record)
{
	struct json_object *containers = pv_json_array(json, "containers");
	size_t count = containers ? json_object_array_length(containers) : 0;

	if (count < 1 || count > PV_CONTAINERS_MAX)
		return -EUCLEAN;
	for (size_t i = 0; i < count; i++) {
		struct json_object *container = json_object_array_get_idx(containers, i);
		const char *path = json_object_is_type(container, json_type_object)
					   ? pv_json_string(container, "path", NULL)
					   : NULL;

		if (!path || *path != '/')
			return -EUCLEAN;
		record->containers[i] = strdup(path);
		if (!record->containers[i])
			return -ENOMEM;
		record->ncontainers++;
		record->sizes[i] = pv_json_u64(container, "size", 0);
	}
	return 0;
}

static int record_from_json(
	const char *name, struct json_object *json, struct pv_record **ret_record, struct pv_error *err)
{
	pv_autorecord struct pv_record *record = pv_record_new(name);
	struct json_object *incidents = pv_json_array(json, "incidents");
	struct json_object *slots = pv_json_array(json, "slots");
	struct json_object *opened = pv_json_object(json, "opened");
	const char *at = pv_json_string(json, "at", NULL);

	if (!record)
		return pv_fail(err, -ENOMEM, name, "out of memory");
	if (pv_json_int(json, "version", 0) != REGISTRY_VERSION)
		return damaged(err, name, "its version is unknown");
	if (strcmp(pv_json_string(json, "name", ""), name))
		return damaged(err, name, "it is another volume's");
	if (containers_from_json(json, record) < 0)
		return damaged(err, name, "it names no container");
	snprintf(record->uuid, sizeof(record->uuid), "%s", pv_json_string(json, "uuid", ""));
	snprintf(record->format, sizeof(record->format), "%s", pv_json_string(json, "format", "luks2"));
	record->at = at ? strdup(at) : NULL;
	record->pool_guid = pv_json_u64(json, "pool_guid", 0);
	record->last_txg = pv_json_u64(json, "last_txg", 0);
	record->created = pv_json_int(json, "created", 0);
	if (opened && pv_json_string(opened, "at", NULL)) {
		record->opened_at = strdup(pv_json_string(opened, "at", ""));
		record->opened_read_only = pv_json_bool(opened, "read_only", false);
		snprintf(record->boot_id, sizeof(record->boot_id), "%s", pv_json_string(opened, "boot", ""));
	}
	record->interrupted = pv_json_bool(json, "interrupted", false);
	if (pv_json_string(json, "failed", NULL))
		record->failed = strdup(pv_json_string(json, "failed", ""));
	if (slots)
		record->slots = json_object_get(slots);
	if (incidents) {
		json_object_put(record->incidents);
		record->incidents = json_object_get(incidents);
	}
	*ret_record = pv_steal_ptr(&record);
	return 0;
}

static int read_whole(int fd, char **ret_text)
{
	struct stat st;
	pv_autofree char *text = NULL;
	size_t got = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size > REGISTRY_MAX_FILE)
		return -EUCLEAN;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	while (got < (size_t)st.st_size) {
		ssize_t n = read(fd, text + got, (size_t)st.st_size - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	text[got] = '\0';
	*ret_text = pv_steal_ptr(&text);
	return 0;
}

int pv_registry_load(int dirfd, const char *name, struct pv_record **ret_record, struct pv_error *err)
{
	char file[PV_VOLUME_NAME_MAX + 8];
	pv_autofree char *text = NULL;
	pv_autoclose int fd = -1;
	pv_autojson struct json_object *json = NULL;
	int r;

	r = pv_volume_name_check(name, err);
	if (r < 0)
		return r;
	snprintf(file, sizeof(file), "%s.json", name);
	fd = dirfd < 0 ? -1 : openat(dirfd, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && (dirfd < 0 || errno == ENOENT)) {
		pv_fail_as(err, -ENOENT, PV_EXIT_NO_VOLUME, name, "there is no volume of this name");
		pv_remedy(err, "'pvol list' shows the volumes; 'pvol open PATH' opens a container that is "
			       "not among them");
		return -ENOENT;
	}
	if (fd < 0)
		return pv_fail(err, -errno, name, "cannot read its registry file: %s", pv_strerror(errno));
	r = read_whole(fd, &text);
	if (r < 0)
		return r == -EUCLEAN
			       ? damaged(err, name, "not a regular file of sensible size")
			       : pv_fail(err, r, name, "cannot read its registry file: %s", pv_strerror(r));
	json = json_tokener_parse(text);
	if (!json_object_is_type(json, json_type_object))
		return damaged(err, name, "not a JSON object");
	return record_from_json(name, json, ret_record, err);
}

static int write_whole(int fd, const char *text)
{
	size_t length = strlen(text);

	while (length) {
		ssize_t n = write(fd, text, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		length -= (size_t)n;
	}
	return 0;
}

int pv_registry_save(int dirfd, const struct pv_record *record, struct pv_error *err)
{
	char file[PV_VOLUME_NAME_MAX + 8], temporary[PV_VOLUME_NAME_MAX + 8];
	pv_autojson struct json_object *json = record_to_json(record);
	pv_autoclose int fd = -1;
	int r;

	snprintf(file, sizeof(file), "%s.json", record->name);
	snprintf(temporary, sizeof(temporary), ".%s.tmp", record->name);
	fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return pv_fail(
			err, -errno, record->name, "cannot write its registry file: %s", pv_strerror(errno));
	r = write_whole(fd, json_object_to_json_string_ext(json, JSON_C_TO_STRING_PRETTY));
	if (r >= 0 && write(fd, "\n", 1) != 1)
		r = -EIO;
	if (r >= 0 && fsync(fd) < 0)
		r = -errno;
	if (r >= 0 && renameat(dirfd, temporary, dirfd, file) < 0)
		r = -errno;
	if (r < 0) {
		unlinkat(dirfd, temporary, 0);
		return pv_fail(err, r, record->name, "cannot write its registry file: %s", pv_strerror(r));
	}
	if (fsync(dirfd) < 0)
		return pv_fail(err, -errno, record->name, "cannot write the registry to disk: %s",
			pv_strerror(errno));
	return 0;
}

int pv_registry_remove(int dirfd, const char *name, struct pv_error *err)
{
	char file[PV_VOLUME_NAME_MAX + 8];

	snprintf(file, sizeof(file), "%s.json", name);
	if (unlinkat(dirfd, file, 0) < 0 && errno != ENOENT)
		return pv_fail(err, -errno, name, "cannot remove its registry file: %s", pv_strerror(errno));
	if (fsync(dirfd) < 0)
		return pv_fail(
			err, -errno, name, "cannot write the registry to disk: %s", pv_strerror(errno));
	return 0;
}

static int is_registry_file(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name);

	return entry->d_name[0] != '.' && length > 5 && !strcmp(entry->d_name + length - 5, ".json");
}

int pv_registry_walk(
	int dirfd, int (*fn)(const char *name, void *private), void *private, struct pv_error *err)
{
	struct dirent **entries = NULL;
	int count, r = 0;

	if (dirfd < 0)
		return 0;
	count = scandirat(dirfd, ".", &entries, is_registry_file, alphasort);
	if (count < 0)
		return pv_fail(err, -errno, NULL, "cannot read the registry: %s", pv_strerror(errno));
	for (int i = 0; i < count; i++) {
		char *name = entries[i]->d_name;

		name[strlen(name) - 5] = '\0';
		if (r == 0 && pv_volume_name_check(name, NULL) == 0)
			r = fn(name, private);
		free(entries[i]);
	}
	free(entries);
	return r;
}

void pv_boot_id(char ret_id[40])
{
	pv_autofclose FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

	ret_id[0] = '\0';
	if (f && fgets(ret_id, 40, f))
		ret_id[strcspn(ret_id, "\n")] = '\0';
}
