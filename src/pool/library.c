/*
 * Which libzpool is this? The library itself carries no version, but its build identifier (an ELF note) names
 * the exact build; tested ones are listed here. An unlisted build passes if the version beside it (libzfs,
 * made of the same source, has it as text) is of the tested series and the sizes of its tables are those this
 * program was compiled with; otherwise nothing is opened.
 */
#include "pool/pool_int.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <libgen.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sa.h>
#include <sys/acl.h>
#include <sys/zfs_acl.h>
#include <sys/zfs_sa.h>
#include <zfeature_common.h>

#define TESTED_SERIES "2.3."

static const struct {
	const char *build;
	const char *version;
} tested[] = {
	{"aa5ac3b917c3d688984d586629dbe184d3cb587c", "2.3.2-2~bpo12+2"}, /* Debian 12 backports, amd64 */
};

static char library_version[80] = "unknown";

const char *pv_pool_libzpool_version(void)
{
	return library_version;
}

struct library {
	char path[MAXPATHLEN];
	char build[2 * 64 + 1];
};

static int read_note(struct dl_phdr_info *info, size_t size, void *private)
{
	struct library *library = private;

	if (!strstr(info->dlpi_name, "/libzpool.so"))
		return 0;
	strlcpy(library->path, info->dlpi_name, sizeof(library->path));
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		const char *at = (const char *)(info->dlpi_addr + header->p_vaddr);
		const char *end = at + header->p_memsz;

		if (header->p_type != PT_NOTE)
			continue;
		while (at + sizeof(ElfW(Nhdr)) <= end) {
			const ElfW(Nhdr) *note = (const void *)at;
			const char *name = at + sizeof(*note);
			const unsigned char *id = (const void *)(name + ((note->n_namesz + 3) & ~3U));

			if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 &&
				memcmp(name, "GNU", 4) == 0 && note->n_descsz <= 64) {
				for (unsigned b = 0; b < note->n_descsz; b++)
					snprintf(library->build + 2 * b, 3, "%02x", id[b]);
				return 1;
			}
			at = (const char *)id + ((note->n_descsz + 3) & ~3U);
		}
	}
	return 1;
}

/* Copies the text after "zfs-" of libzfs's version string, e.g. "2.3.2-2". */
static bool version_in_file(const char *path, char *version, size_t size)
{
	pv_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	const char *text, *at;
	bool found = false;

	if (fd < 0 || fstat(fd, &st) != 0 || st.st_size < 16)
		return false;
	text = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (text == MAP_FAILED)
		return false;
	at = text;
	while (!found && (at = memmem(at, (size_t)(text + st.st_size - at), "zfs-", 4))) {
		const char *end;

		at += 4;
		end = memchr(at, '\0', (size_t)(text + st.st_size - at));
		if (end && (size_t)(end - at) < size && isdigit((unsigned char)at[0]) && at[1] == '.') {
			memcpy(version, at, (size_t)(end - at) + 1);
			found = true;
		}
	}
	munmap((void *)text, (size_t)st.st_size);
	return found;
}

static bool version_beside(const char *libzpool, char *version, size_t size)
{
	char path[MAXPATHLEN], file[MAXPATHLEN + 256];
	const struct dirent *entry;
	bool found = false;
	DIR *dir;

	strlcpy(path, libzpool, sizeof(path));
	dir = opendir(dirname(path));
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, "libzfs.so.", 10) != 0)
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		found = version_in_file(file, version, size);
	}
	closedir(dir);
	return found;
}

/* Tables whose sizes follow the version's features and attributes. */
static const struct {
	const char *symbol;
	size_t size;
} tables[] = {
	{"spa_feature_table", sizeof(zfeature_info_t) * SPA_FEATURES},
	{"zfs_attr_table", sizeof(sa_attr_reg_t) * (ZPL_END + 1)},
};

static int check_tables(struct pv_error *err)
{
	/* By this handle, because the executable may hold copies of the library's variables. */
	void *handle = dlopen("libzpool.so.6", RTLD_NOLOAD | RTLD_LAZY);

	if (!handle)
		return pv_fail(err, -ENOTSUP, "libzpool", "libzpool.so.6 is not loaded in this process");
	dlclose(handle); /* it stays: the executable is linked with it */
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		const ElfW(Sym) *symbol = NULL;
		void *at = dlsym(handle, tables[i].symbol);
		Dl_info info;

		if (!at || !dladdr1(at, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
			return pv_fail(err, -ENOTSUP, "libzpool", "it has no \"%s\"", tables[i].symbol);
		if (symbol->st_size != tables[i].size)
			return pv_fail(err, -ENOTSUP, "libzpool",
				"its \"%s\" has %zu bytes instead of %zu: this is another version of OpenZFS",
				tables[i].symbol, (size_t)symbol->st_size, tables[i].size);
	}
	return 0;
}

int pool_library_check(struct pv_error *err)
{
	struct library library = {0};
	int error;

	dl_iterate_phdr(read_note, &library);
	for (size_t i = 0; i < sizeof(tested) / sizeof(tested[0]); i++) {
		if (strcmp(library.build, tested[i].build) == 0) {
			strlcpy(library_version, tested[i].version, sizeof(library_version));
			return 0;
		}
	}
	if (!version_beside(library.path, library_version, sizeof(library_version)) ||
		strncmp(library_version, TESTED_SERIES, strlen(TESTED_SERIES)) != 0) {
		error = pv_fail(err, -ENOTSUP, "libzpool", "version %s has not been tested with this program",
			library_version);
	} else {
		error = check_tables(err);
		if (error == 0)
			pv_log(PV_LOG_WARNING, "libzpool %s (build %.16s) is not among the tested builds",
				library_version, library.build);
	}
	if (error < 0)
		(void)pv_remedy(err, "install the OpenZFS packages of version %s", tested[0].version);
	return error;
}
