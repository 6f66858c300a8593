/*
 * "Not a volume, but it looks like ...": well-known signatures, so that the error for a wrong path is useful
 * and so that a header is never repaired over somebody else's new file system.
 */
#include "format/format_int.h"

#include "base/cleanup.h"

#include <string.h>

#define HEAD_SIZE (1U << 18)

static const struct signature {
	uint32_t offset;
	uint8_t length;
	const char *magic;
	const char *name;
} signatures[] = {
	{0, 8, "LUKS\xba\xbe\0\2", "a LUKS2 volume"},
	{8192, 6, "CFLOFI", "an encrypted lofi image"},
	{0, 16, "GEOM::ELI\0\0\0\0\0\0\0", "a backup of GELI metadata"},
	{0, 11, "\xeb\x58\x90-FVE-FS-", "a BitLocker volume"},
	{512, 8, "EFI PART", "a disk with a GPT partition table"},
	{4096, 8, "EFI PART", "a disk with a GPT partition table"},
	{0, 4, "XFSB", "an XFS file system"},
	{65600, 8, "_BHRfS_M", "a btrfs file system"},
	{1024, 4, "\x10\x20\xf5\xf2", "an F2FS file system"},
	{4086, 10, "SWAPSPACE2", "a swap area"},
	{3, 8, "NTFS    ", "an NTFS file system"},
	{3, 8, "EXFAT   ", "an exFAT file system"},
	{54, 5, "FAT16", "a FAT file system"},
	{82, 5, "FAT32", "a FAT file system"},
	{32769, 5, "CD001", "an ISO 9660 image"},
	{0, 4, "hsqs", "a squashfs image"},
	{512, 8, "LABELONE", "an LVM physical volume"},
	{4096, 4, "\xfc\x4e\x2b\xa9", "a member of a Linux software RAID"},
	{0, 4, "QFI\xfb", "a QCOW2 disk image"},
	{0, 4, "KDMV", "a VMDK disk image"},
	{0, 8, "vhdxfile", "a VHDX disk image"},
	{0, 6,
		"\xfd"
		"7zXZ\0",
		"an xz-compressed file"},
	{0, 3, "\x1f\x8b\x08", "a gzip-compressed file"},
	{0, 4, "\x28\xb5\x2f\xfd", "a zstd-compressed file"},
	{0, 4, "PK\3\4", "a zip archive"},
	{257, 5, "ustar", "a tar archive"},
	{0, 4,
		"\x7f"
		"ELF",
		"a program"},
	{0, 5, "%PDF-", "a PDF document"},
	{0, 2, "#!", "a script"},
};

/* ext2 to ext4: a two-byte magic is weak, so the block size and the revision must make sense too. */
static const char *sniff_ext(const uint8_t *head, size_t size)
{
	const uint8_t *super = head + 1024;

	if (size < 2048 || super[56] != 0x53 || super[57] != 0xef || super[24] > 6 || super[76] > 1)
		return NULL;
	if (super[96] & 0x40) /* incompatible feature: extents */
		return "an ext4 file system";
	return super[92] & 0x04 ? "an ext3 file system"
				: "an ext2 file system"; /* compatible feature: journal */
}

/* The uberblock array of a vdev label starts at 128 KiB; the magic is 0x00bab10c in either byte order. */
static bool sniff_zfs(const uint8_t *head, size_t size)
{
	static const uint8_t little[8] = {0x0c, 0xb1, 0xba}, big[8] = {0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c};

	for (size_t at = 128 << 10; at + 1024 <= size; at += 1024)
		if (!memcmp(head + at, little, 8) || !memcmp(head + at, big, 8))
			return true;
	return false;
}

static bool all_zero(const uint8_t *data, size_t size)
{
	return !size || (!data[0] && !memcmp(data, data + 1, size - 1));
}

static bool all_text(const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if ((data[i] < 0x20 && !strchr("\t\n\r\f", data[i])) || data[i] == 0x7f)
			return false;
	return true;
}

static const char *sniff_head(const uint8_t *head, size_t size)
{
	const char *ext;

	/* A name of a cipher follows; a LUKS2 header with a damaged version number has zeros there. */
	if (size > 8 && !memcmp(head, "LUKS\xba\xbe\0\1", 8) && head[8])
		return "a LUKS1 volume";
	for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++) {
		const struct signature *s = &signatures[i];

		if (s->offset + s->length <= size && !memcmp(head + s->offset, s->magic, s->length))
			return s->name;
	}
	ext = sniff_ext(head, size);
	if (ext)
		return ext;
	if (sniff_zfs(head, size))
		return "a ZFS pool member (not encrypted)";
	if (size >= 512 && head[510] == 0x55 && head[511] == 0xaa)
		return "a disk with a DOS partition table or boot sector";
	return NULL;
}

static bool sniff_geli(int fd, uint64_t size)
{
	uint8_t tail[512];

	return size >= sizeof(tail) &&
	       format_read(fd, tail, sizeof(tail), (size - sizeof(tail)) & ~511ULL) ==
		       (ssize_t)sizeof(tail) &&
	       !memcmp(tail, "GEOM::ELI\0\0\0\0\0\0\0", 16);
}

const char *format_sniff(int fd, bool *ret_foreign)
{
	pv_autofree uint8_t *head = format_buffer(HEAD_SIZE);
	const char *name = NULL;
	uint64_t size;
	ssize_t n;

	if (ret_foreign)
		*ret_foreign = false;
	if (!head || format_size(fd, &size, NULL))
		return NULL;
	if (!size)
		return "an empty file";
	n = format_read(fd, head, HEAD_SIZE, 0);
	if (n <= 0)
		return NULL;
	name = sniff_head(head, (size_t)n);
	if (!name && sniff_geli(fd, size))
		name = "a GELI provider";
	if (!name && !all_zero(head, (size_t)n) && all_text(head, (size_t)n < 4096 ? (size_t)n : 4096))
		name = "a text file";
	if (name) {
		if (ret_foreign)
			*ret_foreign = true;
		return name;
	}
	return all_zero(head, (size_t)n) ? "all zeros at its start" : NULL;
}
