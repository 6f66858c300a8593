/*
 * The header area as a whole: backup, restore and erasure. A backup is the image of the container up to the
 * end of the key slots area, the same file that cryptsetup's luksHeaderBackup makes and luksHeaderRestore
 * takes.
 */
#include "format/luks2_int.h"

#include "base/cleanup.h"
#include "format/format_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define CHUNK (1U << 20)

/* Copies a range between the same offsets of two files. */
static int copy_range(int from, int to, uint64_t offset, uint64_t end, struct pv_error *err)
{
	pv_autofree uint8_t *buffer = format_buffer(CHUNK);
	int r;

	if (!buffer)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	while (offset < end) {
		size_t size = end - offset < CHUNK ? (size_t)(end - offset) : CHUNK;
		ssize_t n = format_read(from, buffer, size, offset);

		if (n < 0)
			return pv_fail(
				err, (int)n, NULL, "cannot read the key slots: %s", pv_strerror((int)n));
		if ((size_t)n < size)
			return pv_fail(
				err, -EUCLEAN, NULL, "the file is truncated: it ends inside the key slots");
		r = format_write(to, buffer, size, offset);
		if (r)
			return pv_fail(err, r, NULL, "cannot write the key slots: %s", pv_strerror(r));
		offset += size;
	}
	return 0;
}

int luks2_backup(int fd, int backup_fd, struct pv_error *err)
{
	luks2_auto struct luks2 *header = NULL, *copy = NULL;
	uint64_t size;
	int r;

	r = luks2_read(fd, &header, err);
	if (!r)
		r = format_size(backup_fd, &size, err);
	if (!r && size)
		r = pv_fail(err, -EEXIST, NULL, "the backup file is not empty");
	if (!r)
		r = copy_range(fd, backup_fd, 2 * header->hdr_size, header->meta.keyslots_end, err);
	if (r)
		return r;
	/* Both copies come out in order even if one of the container's is not. */
	header->foreign[0] = '\0';
	header->copy[0] = header->copy[1] = LUKS2_COPY_DAMAGED;
	r = luks2_repair(backup_fd, header, err);
	if (!r)
		r = luks2_read(backup_fd, &copy, err);
	if (!r && (copy->copy[0] != LUKS2_COPY_OK || copy->copy[1] != LUKS2_COPY_OK))
		r = pv_fail(err, -EIO, NULL, "the backup does not read back as it was written");
	return r;
}

/* Whether the backup belongs to this container. Returns the highest sequence number there. */
static int check_target(
	int fd, const struct luks2 *backup, bool force, uint64_t *ret_seqid, struct pv_error *err)
{
	luks2_auto struct luks2 *present = NULL;
	char uuid[41] = "";
	uint64_t size;
	int r;

	r = format_size(fd, &size, err);
	if (r)
		return r;
	if (size < backup->meta.segment.offset)
		return pv_fail(err, -EINVAL, NULL, "the container is too small for this backup's volume");
	if (!luks2_read(fd, &present, NULL)) {
		*ret_seqid = present->seqid;
		memcpy(uuid, present->uuid, sizeof(uuid));
		if (!present->meta.refused[0] && present->meta.segment.offset != backup->meta.segment.offset)
			return pv_fail(
				err, -EINVAL, NULL, "the backup is of a volume whose data start elsewhere");
	} else {
		luks2_look(fd, uuid);
	}
	if (force || !strcmp(uuid, backup->uuid))
		return 0;
	if (uuid[0])
		pv_fail(err, -EINVAL, NULL, "the backup is of another volume (UUID %s, not %s)", backup->uuid,
			uuid);
	else
		pv_fail(err, -EINVAL, NULL,
			"nothing in the container shows that the backup (UUID %s) belongs to it",
			backup->uuid);
	pv_remedy(err, "if you are sure, use --force");
	return -EINVAL;
}

int luks2_restore(int fd, int backup_fd, bool force, struct pv_error *err)
{
	luks2_auto struct luks2 *backup = NULL;
	uint64_t size, seqid = 0;
	int r;

	r = format_size(backup_fd, &size, err);
	if (!r)
		r = luks2_read(backup_fd, &backup, err);
	if (r)
		return r;
	if (backup->meta.refused[0])
		return pv_fail(
			err, -ENOTSUP, NULL, "the backup cannot be restored: %s", backup->meta.refused);
	if (size < backup->meta.keyslots_end)
		return pv_fail(err, -EUCLEAN, NULL, "the backup is truncated: it ends inside the key slots");
	r = check_target(fd, backup, force, &seqid, err);
	if (!r)
		r = format_lock(fd, err);
	if (r)
		return r;
	r = copy_range(backup_fd, fd, 2 * backup->hdr_size, backup->meta.keyslots_end, err);
	if (!r && (r = format_sync(fd)))
		pv_fail(err, r, NULL, "cannot write the key slots: %s", pv_strerror(r));
	/* Above what is there, so that a secondary copy which a crash leaves behind is the older one. */
	if (seqid > backup->seqid && seqid < UINT64_MAX - 1)
		backup->seqid = seqid;
	if (!r)
		r = luks2_write(fd, backup, err);
	format_unlock(fd);
	return r;
}

/* ---- erase */

static int hash_chunk(const uint8_t *data, size_t size, uint8_t ret_sum[static 32])
{
	return EVP_Digest(data, size, ret_sum, NULL, EVP_sha256(), NULL) ? 0 : -EIO;
}

/* Writes random bytes (verify false) and notes their hashes, or compares what is there with these (true). */
static int shred_pass(int fd, uint64_t end, bool verify, uint8_t (*sums)[32], struct pv_error *err)
{
	pv_autofree uint8_t *buffer = format_buffer(CHUNK);
	uint8_t sum[32];
	int r = 0;

	if (!buffer)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	for (uint64_t at = 0; !r && at < end; at += CHUNK, sums++) {
		size_t size = end - at < CHUNK ? (size_t)(end - at) : CHUNK;

		if (verify) {
			ssize_t n = format_read(fd, buffer, size, at);

			if (n < 0)
				return pv_fail(
					err, (int)n, NULL, "cannot read back: %s", pv_strerror((int)n));
			r = hash_chunk(buffer, size, sum);
			if (!r && ((size_t)n < size || memcmp(sum, *sums, sizeof(sum))))
				return pv_fail(err, -EIO, NULL,
					"the container does not hold what it was overwritten with");
			continue;
		}
		r = format_random(buffer, size);
		if (!r)
			r = hash_chunk(buffer, size, *sums);
		if (!r)
			r = format_write(fd, buffer, size, at);
	}
	return r ? pv_fail(err, r, NULL, "cannot overwrite the header: %s", pv_strerror(r)) : 0;
}

/* Tells the medium that the range is free; that it cannot is no failure, the bytes are overwritten. */
static void discard(int fd, uint64_t end)
{
	uint64_t range[2] = {0, end};
	struct stat st;

	if (!fstat(fd, &st) && S_ISBLK(st.st_mode))
		(void)!ioctl(fd, BLKDISCARD, range);
	else
		(void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)end);
}

int luks2_erase(int fd, struct pv_error *err)
{
	luks2_auto struct luks2 *header = NULL;
	pv_autofree uint8_t(*sums)[32] = NULL;
	uint64_t size, end = LUKS2_DATA_OFFSET;
	char uuid[41];
	int r;

	r = format_size(fd, &size, err);
	if (r)
		return r;
	/* Also without a readable header: then what a new one takes, which covers every place of a copy. */
	if (!luks2_read(fd, &header, NULL) && header->meta.keyslots_end > end)
		end = header->meta.keyslots_end;
	if (end > size)
		end = size;
	sums = calloc(end / CHUNK + 1, sizeof(*sums));
	if (!sums)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	r = format_lock(fd, err);
	if (r)
		return r;
	r = shred_pass(fd, end, false, sums, err);
	if (!r && (r = format_sync(fd)))
		pv_fail(err, r, NULL, "cannot overwrite the header: %s", pv_strerror(r));
	if (!r) {
		posix_fadvise(fd, 0, (off_t)end,
			POSIX_FADV_DONTNEED); /* read back from the medium, not the cache */
		r = shred_pass(fd, end, true, sums, err);
	}
	if (!r) {
		discard(fd, end);
		r = format_sync(fd);
		if (!r && luks2_look(fd, uuid))
			r = -EIO;
		if (r)
			pv_fail(err, r, NULL, "the header is still there after it was discarded");
	}
	format_unlock(fd);
	return r;
}
